"""Settings of the reduction.

Which parameters of which steps of jwst a dataset may set: switches, numbers and choices.

A dataset is data that people pass on. jwst itself takes far more: hooks, which are commands and Python that it runs,
and names of files and directories that it reads or writes. None of these is here: no dataset can name one.

Parameters of the post-processing of calibrated slit pixels, which the drizzle builder reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from msa3d._model import SHUTTERS, Model, PlainName, Positive, nearest

#: Steps of the three pipelines of jwst, of 1.14.0 or of 3.0.0: the keys of ``process.detector1``, ``process.spec2``,
#: ``process.spec3``. Which of them the jwst that is installed has, and by which name, is seen when it runs
#: (`msa3d.jwst_adapter.translated`).
DETECTOR1_STEPS = (
    "group_scale", "dq_init", "emicorr", "saturation", "ipc", "superbias", "refpix", "rscd", "firstframe",
    "lastframe", "linearity", "dark_current", "reset", "persistence", "charge_migration", "jump", "picture_frame",
    "clean_flicker_noise", "ramp_fit", "gain_scale",
)  # fmt: skip
SPEC2_STEPS = (
    "assign_wcs", "badpix_selfcal", "msa_flagging", "nsclean", "clean_flicker_noise", "bkg_subtract",
    "imprint_subtract", "extract_2d", "master_background_mos", "targ_centroid", "wavecorr", "flat_field", "srctype",
    "straylight", "fringe", "residual_fringe", "pathloss", "barshadow", "wfss_contam", "photom",
    "adaptive_trace_model", "pixel_replace", "resample_spec", "cube_build", "extract_1d",
)  # fmt: skip
SPEC3_STEPS = (
    "assign_mtwcs", "master_background", "mrs_imatch", "outlier_detection", "adaptive_trace_model",
    "pixel_replace", "resample_spec", "cube_build", "extract_1d", "photom", "combine_1d", "spectral_leak",
)  # fmt: skip

#: Parameters of a step beside ``skip``, which every step has; a step that is not here has no others.
PARAMETERS = {
    "adaptive_trace_model": "fit_threshold maximum_cores oversample psf_optimal slope_limit",
    "assign_wcs": (
        "sip_approx sip_degree sip_inv_degree sip_max_inv_pix_error sip_max_pix_error sip_npoints slit_y_high "
        "slit_y_low"
    ),
    "badpix_selfcal": "flagfrac_lower flagfrac_upper force_single kernel_size",
    "barshadow": "inverse source_type",
    "bkg_subtract": "maxiters sigma wfss_mmag_extract",
    "charge_migration": "signal_threshold",
    "clean_flicker_noise": (
        "apply_flat_field autoparam background_box_size background_method fit_by_channel fit_histogram fit_method "
        "mask_science_regions n_sigma single_mask"
    ),
    "combine_1d": "exptime_key sigma_clip",
    "cube_build": (
        "band channel coord_system cube_pa debug_spaxel dec_center filter grating linear_wave nspax_x nspax_y "
        "output_type ra_center rois roiw scalew scalexy single skip_dqflagging wavemax wavemin weight_power "
        "weighting"
    ),
    "dark_current": "average_dark_current",
    "emicorr": "nbins nints_to_phase onthefly_corr_freq scale_reference",
    "extract_1d": (
        "apply_apcorr bkg_fit bkg_order bkg_sigma_clip center_xy extraction_type ifu_autocen ifu_rfcorr ifu_rscale "
        "ifu_set_srctype log_increment model_nod_pair optimize_psf_location position_offset smoothing_length "
        "soss_atoca soss_bad_pix soss_max_grid_size soss_n_os soss_rtol soss_threshold soss_tikfac soss_width "
        "subtract_background use_source_posn"
    ),
    "extract_2d": (
        "extract_orders slit_name slit_names source_ids tsgrism_extract_height wfss_extract_half_height "
        "wfss_mmag_extract wfss_nbright"
    ),
    "flat_field": "inverse",
    "jump": (
        "after_jump_flag_dn1 after_jump_flag_dn2 after_jump_flag_time1 after_jump_flag_time2 edge_size expand_factor "
        "expand_large_events extend_ellipse_expand_ratio extend_inner_radius extend_min_area extend_outer_radius "
        "extend_snr_threshold find_showers flag_4_neighbors four_group_rejection_threshold "
        "mask_snowball_core_next_int max_extended_radius max_jump_to_flag_neighbors max_shower_amplitude "
        "maximum_cores min_diffs_single_pass min_jump_area min_jump_to_flag_neighbors min_sat_area "
        "min_sat_radius_extend minimum_groups minimum_sigclip_groups only_use_ints rejection_threshold sat_expand "
        "sat_required_snowball snowball_time_masked_next_int three_group_rejection_threshold "
        "time_masked_after_shower use_ellipses"
    ),
    "master_background": "force_subtract median_kernel",
    "master_background_mos": "force_subtract inverse median_kernel sigma_clip",
    "mrs_imatch": "bkg_degree subtract",
    "nsclean": "mask_spectral_regions n_sigma",
    "outlier_detection": (
        "allowed_memory backg fillval good_bits ifu_second_check in_memory kernel kernel_size maskpt nhigh nlow "
        "pixmap_order pixmap_stepsize rolling_window_width pixfrac resample_data scale scale_detection snr "
        "threshold_percent weight_type"
    ),
    "pathloss": "inverse source_type user_slit_loc",
    "persistence": "dn_threshold flag_pers_cutoff persistence_dnu persistence_time",
    "photom": "apply_time_correction inverse mrs_time_correction source_type",
    "picture_frame": "mask_science_regions n_sigma",
    "pixel_replace": "algorithm n_adjacent_cols",
    "ramp_fit": "algorithm firstgroup lastgroup maximum_cores suppress_one_group",
    "refpix": (
        "gaussmooth halfwidth irs2_mean_subtraction odd_even_columns odd_even_rows ovr_corr_mitigation_ftr "
        "preserve_irs2_refpix refpix_algorithm side_gain side_smoothing_length siglimit sigreject "
        "use_side_ref_pixels"
    ),
    "resample_spec": (
        "allowed_memory blendheaders crpix crval fillval in_memory kernel output_shape pixel_scale pixel_scale_ratio "
        "pixfrac propagate_dq rotation single weight_type"
    ),
    "residual_fringe": "ignore_region_max ignore_region_min",
    "rscd": "type",
    "saturation": "n_pix_grow_sat use_readpatt",
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


class CalPathloss(Model):
    """Correction for light lost in the spectrograph, by the slitlet's real length.

    Parameters
    ----------
    source : {"uniform", "auto", "point", "none"}
        Whose path loss of the CRDS reference. ``uniform``: light that fills the slit, right for the cube of a
        stepped slit, whose steps share the light of every source. ``point``: a point at the source's place in
        its shutter, right for one exposure on a star; where the place is outside the reference's range, the
        slit is treated as uniform. ``auto``: ``point`` where SRCTYPE or the stellarity say so, else ``uniform``.
    """

    source: Literal["uniform", "auto", "point", "none"] = "uniform"


class BarShadow(Model):
    """Correction for the shadow of the bars between shutters.

    Parameters
    ----------
    method : {"apply", "none"}
        ``apply``: divide by what the CRDS ``barshadow`` reference lets through, in the open area of the slitlet.
        Slits corrected as point sources are left alone, as their path loss has the bars in it.
    min_transmission : float
        Pixels that get less than this fraction of the light are flagged DO_NOT_USE and not amplified. Those
        between two open shutters get about 0.5.
    """

    method: Literal["apply", "none"] = "apply"
    min_transmission: Annotated[float, Field(gt=0, lt=1)] = 0.4


class CalBackground(Model):
    """Background that is subtracted from the slits.

    Parameters
    ----------
    method : {"none", "empty", "ends"}
        ``none``: the background stays for the continuum fit. ``empty``: from the slitlets without a source
        (background or filler shutters) on the same detector. ``ends``: from the slitlet's own pixels near its
        two ends, which must be free of the source.
    ends_arcsec : float
        For ``ends``: how far from the ends of the open area.
    knot_um : float
        Distance of the knots of the cubic spline in wavelength.
    sigclip : float
        Values further from the spline than this many standard deviations are left out, three times over.
    """

    method: Literal["none", "empty", "ends"] = "none"
    ends_arcsec: Positive = 0.45
    knot_um: float = Field(0.02, ge=1e-3)
    sigclip: Positive = 4.0


class CalCosmicRays(Model):
    """Rejection of cosmic rays in one exposure; the leave-one-out rejection of the cube does without it.

    Parameters
    ----------
    method : {"none", "astroscrappy"}
        ``astroscrappy``: L.A.Cosmic with the pipeline's own variances, so that gain and read noise need not be
        guessed. Pixels are flagged, never replaced.
    sigclip, sigfrac, objlim, niter
        Arguments of `astroscrappy.detect_cosmics`.
    """

    method: Literal["none", "astroscrappy"] = "none"
    sigclip: Positive = 5.0
    sigfrac: Positive = 0.3
    objlim: Positive = 3.0
    niter: int = Field(4, ge=1, le=100)


class CalpostSettings(Model):
    """Post-processing of calibrated slits: cal -> cal_pathcorr_astrocorr.

    Parameters
    ----------
    pathloss, barshadow, background, cosmic_rays
        See `CalPathloss`, `BarShadow`, `CalBackground`, `CalCosmicRays`.
    recompute_errors : bool
        Where ERR is NaN though the variances of photons and read noise are known (the uncertainty of a flat is
        not: STScI's known issue NS-MOS02), rebuild it from these two.
    open_area_only : bool
        Flag pixels whose middle lies outside the slitlet's open area DO_NOT_USE.
    """

    pathloss: CalPathloss = CalPathloss()
    barshadow: BarShadow = BarShadow()
    background: CalBackground = CalBackground()
    cosmic_rays: CalCosmicRays = CalCosmicRays()
    recompute_errors: bool = True
    open_area_only: bool = True


class ProcessSettings(Model):
    """Step 1, with parameters of jwst as data.

    Parameters
    ----------
    spec2, spec3 : dict of dict
        ``{step: {parameter: value}}`` of Spec2Pipeline and Spec3Pipeline: those of `msa3d.reduce.settings.PARAMETERS`.
    rectify : bool
        Whether Spec3 makes rectified 2-D spectra: the published builder needs them, the drizzle builder does not.
    product : str
        Product name of the Spec3 association.
    transform_msa : bool
        Apply the published transform of source ids to the copy of the metafile.
    wanted_sources_only : bool
        Keep in the metafile copy only the slitlets of the targets. Not published: it saves time.
    split_slitlets : int, optional
        In the metafile copy, split slitlets that are longer than this many shutters (known issue NS-MOS03).
    lengthen_slitlets : int
        In the metafile copy, pretend so many more open shutters, at most 10, at each end (known issue NS-MOS06).
    accelerations : "all", "none" or list of str
        Which accelerations of `msa3d.reduce.jwst_speed` to use; all give identical images.
    nsclean : bool
        Take the correlated noise out of the count rates first (`msa3d.reduce.nsclean`), as the published reduction
        does; images whose header says that it was done (S_NSCLEN) are left alone.
    run_stage1 : bool
        Start from uncal files with Detector1 (`detector1`), not from rates.
    detector1 : dict of dict
        ``{step: {parameter: value}}`` of Detector1Pipeline, likewise.
    """

    spec2: dict[str, dict[str, Any]] = Field({})
    spec3: dict[str, dict[str, Any]] = Field({})
    rectify: bool = True
    product: PlainName = "newoutput"
    transform_msa: bool = True
    wanted_sources_only: bool = False
    split_slitlets: int | None = Field(None, ge=1, le=SHUTTERS)
    lengthen_slitlets: int = Field(0, ge=0, le=10)
    accelerations: list[str] | Literal["all", "none"] = "all"
    nsclean: bool = False
    run_stage1: bool = False
    detector1: dict[str, dict[str, Any]] = Field({})

    @field_validator("spec2", "spec3", "detector1")
    @classmethod
    def _steps_are_safe(cls, value: dict, info: Any) -> dict:
        steps = {"spec2": SPEC2_STEPS, "spec3": SPEC3_STEPS, "detector1": DETECTOR1_STEPS}
        check_steps(value, steps[info.field_name])
        return value
