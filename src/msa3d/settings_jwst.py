"""Which parameters of which steps of jwst a dataset may set: switches, numbers and choices.

A dataset is data that people pass on. jwst itself takes far more: hooks, which are commands and Python that it runs,
and names of files and directories that it reads or writes. None of these is here: no dataset can name one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msa3d._model import nearest

#: Steps of the three pipelines of jwst 1.14.0: the keys of ``process.detector1``, ``process.spec2``, ``process.spec3``.
DETECTOR1_STEPS = (
    "group_scale", "dq_init", "emicorr", "saturation", "ipc", "superbias", "refpix", "rscd", "firstframe",
    "lastframe", "linearity", "dark_current", "reset", "persistence", "charge_migration", "jump", "ramp_fit",
    "gain_scale",
)  # fmt: skip
SPEC2_STEPS = (
    "assign_wcs", "msa_flagging", "nsclean", "bkg_subtract", "imprint_subtract", "extract_2d",
    "master_background_mos", "wavecorr", "flat_field", "srctype", "straylight", "fringe", "residual_fringe",
    "pathloss", "barshadow", "wfss_contam", "photom", "pixel_replace", "resample_spec", "cube_build",
    "extract_1d",
)  # fmt: skip
SPEC3_STEPS = (
    "assign_mtwcs", "master_background", "mrs_imatch", "outlier_detection", "resample_spec", "cube_build",
    "extract_1d", "photom", "combine_1d", "spectral_leak",
)  # fmt: skip

#: Parameters of a step beside ``skip``, which every step has; a step that is not here has no others.
PARAMETERS = {
    "assign_wcs": (
        "sip_approx sip_degree sip_inv_degree sip_max_inv_pix_error sip_max_pix_error sip_npoints slit_y_high "
        "slit_y_low"
    ),
    "barshadow": "inverse source_type",
    "bkg_subtract": "maxiters sigma wfss_mmag_extract",
    "charge_migration": "signal_threshold",
    "combine_1d": "exptime_key",
    "cube_build": (
        "band channel coord_system cube_pa debug_spaxel dec_center filter grating nspax_x nspax_y output_type "
        "ra_center rois roiw scalew scalexy single skip_dqflagging wavemax wavemin weight_power weighting"
    ),
    "dark_current": "average_dark_current",
    "emicorr": "nbins nints_to_phase onthefly_corr_freq scale_reference",
    "extract_1d": (
        "apply_apcorr bkg_fit bkg_order bkg_sigma_clip center_xy ifu_autocen ifu_rfcorr ifu_rscale "
        "ifu_set_srctype log_increment smoothing_length soss_atoca soss_bad_pix soss_max_grid_size soss_n_os "
        "soss_rtol soss_threshold soss_tikfac soss_width subtract_background use_source_posn"
    ),
    "extract_2d": (
        "extract_orders slit_name tsgrism_extract_height wfss_extract_half_height wfss_mmag_extract wfss_nbright"
    ),
    "flat_field": "inverse",
    "jump": (
        "after_jump_flag_dn1 after_jump_flag_dn2 after_jump_flag_time1 after_jump_flag_time2 edge_size "
        "expand_factor expand_large_events extend_ellipse_expand_ratio extend_inner_radius extend_min_area "
        "extend_outer_radius extend_snr_threshold find_showers flag_4_neighbors four_group_rejection_threshold "
        "mask_snowball_core_next_int max_extended_radius max_jump_to_flag_neighbors maximum_cores "
        "min_diffs_single_pass min_jump_area min_jump_to_flag_neighbors min_sat_area min_sat_radius_extend "
        "minimum_groups minimum_sigclip_groups only_use_ints rejection_threshold sat_expand sat_required_snowball "
        "snowball_time_masked_next_int three_group_rejection_threshold time_masked_after_shower use_ellipses"
    ),
    "master_background": "force_subtract",
    "master_background_mos": "force_subtract inverse",
    "mrs_imatch": "bkg_degree subtract",
    "nsclean": "mask_spectral_regions n_sigma",
    "outlier_detection": (
        "allowed_memory backg fillval good_bits ifu_second_check in_memory kernel kernel_size maskpt nhigh nlow "
        "pixfrac resample_data scale scale_detection snr threshold_percent weight_type"
    ),
    "pathloss": "inverse source_type user_slit_loc",
    "persistence": "flag_pers_cutoff",
    "photom": "inverse mrs_time_correction source_type",
    "pixel_replace": "algorithm n_adjacent_cols",
    "ramp_fit": "maximum_cores suppress_one_group",
    "refpix": (
        "irs2_mean_subtraction odd_even_columns odd_even_rows ovr_corr_mitigation_ftr preserve_irs2_refpix "
        "side_gain side_smoothing_length use_side_ref_pixels"
    ),
    "resample_spec": (
        "allowed_memory blendheaders crpix crval fillval in_memory kernel output_shape pixel_scale "
        "pixel_scale_ratio pixfrac rotation single weight_type"
    ),
    "residual_fringe": "ignore_region_max ignore_region_min",
    "rscd": "type",
    "saturation": "n_pix_grow_sat",
    "srctype": "source_type",
    "wfss_contam": "maximum_cores",
}

#: Text that is a choice, or a list of numbers, and no path, address or expression.
_WORDS = re.compile(r"[A-Za-z0-9_~+., -]{0,200}")
_LONGEST_LIST = 1000


def check_steps(parameters: Mapping[str, Mapping[str, Any]], steps: tuple[str, ...]) -> None:
    """See that parameters of steps are those that a dataset may set.

    Parameters
    ----------
    parameters : mapping
        ``{step: {parameter: value}}``.
    steps : tuple of str
        Steps of the pipeline, in jwst's names.

    Raises
    ------
    ValueError
        For an unknown step or parameter, or a value that is not a switch, a number, a choice or a list of these.
    """
    for step, values in parameters.items():
        if step not in steps:
            raise ValueError(f"jwst has no such step: {step!r}{nearest(step, steps)}")
        allowed = ("skip", *PARAMETERS.get(step, "").split())
        for name, value in values.items():
            if name not in allowed:
                hint = nearest(name, allowed) or f"; it may set {', '.join(sorted(allowed))}"
                raise ValueError(f"a dataset cannot set {name!r} of step {step}{hint}")
            items = value if isinstance(value, list) else [value]
            if len(items) > _LONGEST_LIST or not all(_is_plain(item) for item in items):
                raise ValueError(
                    f"{step}.{name} has to be a switch, a number, a choice or a list of these; "
                    "names of files and commands are not taken from a dataset"
                )


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return _WORDS.fullmatch(value) is not None
    return value is None or isinstance(value, bool | int | float)
