"""How much time slit-stepping with the micro-shutters saves against the integral-field unit, target by target.

Slit-stepping sees all targets at once, but each place of a target in one of its steps only. The integral-field
unit sees all of one target at once, but one target after the other. `compare` gives the time that each needs for the
same depth, and how the gain is made up. Each input says where its default comes from (`ORIGINS`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

ORIGINS = {
    "targets": "43 galaxies: Barisic et al. 2024",
    "steps": "9 steps across the slit: published pattern",
    "dithers": "7 dithers along the slit: published pattern",
    "exposure_s": "our round number, near the 1167 s (16 groups) of the embedded observation",
    "noise_penalty": "detector noise: two IFU pixels (0.1 arcsec slices) where a 0.2 arcsec shutter has one; 1 when "
    "the sky's or the source's own noise rules",
    "throughput_ratio": "our assumption: equal; below 1 where the IFU passes less light",
    "exposure_overhead_s": "JDox, NIRSpec Overheads: 45 s set-up (IRS2) and 7 s clean-up",
    "specification_s": "JDox, NIRSpec Overheads: 65 s compilation an exposure specification",
    "acquisition_s": "JDox, NIRSpec Overheads: 1200 s target acquisition (MSA)",
    "configuration_s": "JDox, NIRSpec Overheads: 90 s to configure the shutters, once for each step",
    "slew_s": "our assumption for the slew to a target's field and the guide star, the same in both modes",
    "ifs_acquisition_s": "none: the field of 3 arcsec forgives the telescope's pointing",
    "ifs_leakage_exposures": "our choice: one exposure a target with all shutters closed, for the light that leaks",
}
"""Where the default of each input comes from."""
PUBLISHED_GAIN = 15.0
"""Barisic et al. 2024, abstract: more than that."""


@dataclass(frozen=True)
class Inputs:
    """What the two observations are made of; `ORIGINS` has the source of each default.

    Attributes
    ----------
    targets : int
        Galaxies that are wanted; slitlets that are open at once.
    steps, dithers : int
        Steps across the slit and dithers along it; a place in a target is seen in `dithers` of the
        ``steps * dithers`` exposures.
    exposure_s : float
        Time of an exposure.
    noise_penalty : float
        Variance of the integral-field unit over that of the shutters in the same time and area of sky.
    throughput_ratio : float
        Light that reaches the detector through the integral-field unit over that through an open shutter.
    exposure_overhead_s, specification_s, acquisition_s, configuration_s, slew_s : float
        Overheads of slit-stepping; the integral-field unit shares all but acquisition and configuration.
    ifs_acquisition_s, ifs_leakage_exposures : float
        Overheads of the integral-field unit, a target.
    """

    targets: int = 43
    steps: int = 9
    dithers: int = 7
    exposure_s: float = 1200.0
    noise_penalty: float = 2.0
    throughput_ratio: float = 1.0
    exposure_overhead_s: float = 52.0
    specification_s: float = 65.0
    acquisition_s: float = 1200.0
    configuration_s: float = 90.0
    slew_s: float = 1800.0
    ifs_acquisition_s: float = 0.0
    ifs_leakage_exposures: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be observed."""
        for name in ("targets", "steps", "dithers", "exposure_s", "noise_penalty", "throughput_ratio"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be above 0")


@dataclass(frozen=True)
class Comparison:
    """Time that two modes need for the same depth.

    Attributes
    ----------
    slit_stepping_s, ifs_s : float
        With overheads.
    factors : dict of str to float
        What multiplies to `gain`: number of targets, steps, noise, throughput, overheads.
    """

    slit_stepping_s: float
    ifs_s: float
    factors: dict[str, float]

    @property
    def gain(self) -> float:
        """Time of the integral-field unit over that of slit-stepping."""
        return self.ifs_s / self.slit_stepping_s


def compare(inputs: Inputs | None = None, **changes: float) -> Comparison:
    """Compare the two modes.

    Parameters
    ----------
    inputs : Inputs, optional
        The observation; the published one without it.
    **changes
        Inputs to change.

    Returns
    -------
    Comparison
        Times and the factors of the gain.

    Raises
    ------
    ValueError
        If an input that must be positive is not.
    """
    i = replace(inputs or Inputs(), **changes)
    exposures = i.steps * i.dithers
    own_open = exposures * i.exposure_s
    own = i.slew_s + i.acquisition_s + i.specification_s + i.steps * i.configuration_s
    own += exposures * (i.exposure_s + i.exposure_overhead_s)
    # The light of a place in `dithers` exposures, in as many of the other mode, each longer where it sees less.
    depth = i.noise_penalty / i.throughput_ratio**2
    each_open = i.dithers * i.exposure_s * depth
    extra = i.ifs_leakage_exposures * (i.exposure_s + i.exposure_overhead_s)
    each = i.slew_s + i.ifs_acquisition_s + i.specification_s + each_open + i.dithers * i.exposure_overhead_s + extra
    ifs, ifs_open = i.targets * each, i.targets * each_open
    factors = {
        "targets at once": float(i.targets),
        "steps across the slit": 1.0 / i.steps,
        "noise of the detector": i.noise_penalty,
        "throughput": 1.0 / i.throughput_ratio**2,
        "overheads": (ifs / own) / (ifs_open / own_open),
    }
    return Comparison(own, ifs, factors)


def loss_for(gain: float, inputs: Inputs | None = None) -> float:
    """Find how much worse than the shutters the integral-field unit must be for a gain.

    Parameters
    ----------
    gain : float
        Wanted.
    inputs : Inputs, optional
        The observation; the published one without it. Its noise penalty and throughput do not matter.

    Returns
    -------
    float
        ``noise_penalty / throughput_ratio**2``, on which alone the gain depends, linearly; negative where overheads
        alone give more.
    """
    none, one = (compare(inputs, noise_penalty=penalty, throughput_ratio=1.0).gain for penalty in (1.0, 2.0))
    return 1.0 + (gain - none) / (one - none)


def published_gain_needs(inputs: Inputs | None = None) -> dict[str, float]:
    """Numbers that say for which integral-field unit the published gain follows.

    Parameters
    ----------
    inputs : Inputs, optional
        The observation; the published one without it.

    Returns
    -------
    dict of str to float
        ``gain`` of the inputs with equal throughput, ``gain_background`` where both have the same noise variance, too;
        the ``throughput_ratio`` below which, with the noise penalty of the inputs, the gain is more than
        `PUBLISHED_GAIN`, and the ``noise_penalty`` above which it is with equal throughput; ``published``, ``targets``
        and ``assumed`` noise penalty.
    """
    inputs = replace(inputs or Inputs(), throughput_ratio=1.0)
    loss = loss_for(PUBLISHED_GAIN, inputs)
    return {
        "gain": compare(inputs).gain,
        "gain_background": compare(inputs, noise_penalty=1.0).gain,
        "throughput_ratio": math.sqrt(inputs.noise_penalty / loss) if loss > 0 else math.inf,
        "noise_penalty": loss,
        "published": PUBLISHED_GAIN,
        "targets": inputs.targets,
        "assumed": inputs.noise_penalty,
    }
