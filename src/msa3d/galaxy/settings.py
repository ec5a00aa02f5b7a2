"""What is measured on a galaxy, and with which relations: the ``science`` part of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from msa3d._model import Model, Positive

Line = Literal["Hb", "[OIII]5007", "Ha", "[NII]6583", "[SII]6716", "[SII]6731"]
LineSpreadName = Literal["slit", "pre-flight", "in-flight"]
Metallicity = Literal["PP04_N2", "PP04_O3N2", "M13_N2", "M13_O3N2", "C17_N2", "C17_O3N2", "C17_R3", "C20_S2"]


class ScienceSettings(Model):
    """The measurement of a galaxy in its cube.

    Parameters
    ----------
    lines : list of str
        Species that are fitted, keys of `msa3d.galaxy.lines.SPECIES`; Ha among them.
    metallicity : str
        Calibration of the metallicity that maps and the first rows of the report have, a name of
        ``galaxy/data/calibrations.yaml``; the others whose lines are there are in the report as well.
    star_formation : str
        Calibration of the star-formation rate, of the same table.
    dust_law : str
        Attenuation law, a key of `msa3d.galaxy.dust.LAWS`.
    continuum_rest_um : tuple of float
        Range of rest wavelengths without strong lines in which the stars are measured, um.
    bin_snr : float
        Signal to noise that the disc in Ha has in each bin.
    ring_arcsec, rings_to_arcsec : float
        Width of the rings in the plane of the disc, and their outermost radius, arcsec.
    centre_moved_arcsec : float
        A centre of the starlight farther than this from the target is not believed.
    line_spread : {"slit", "pre-flight", "in-flight"}, optional
        Line-spread function that is removed from the widths of lines, as in `msa3d.galaxy.lines.LineSpread`: the image
        of the slit with the pixel, the pre-flight resolving power, or that times a factor (ours). Without it ``slit``
        for cubes whose header tells the width of the slit, else ``pre-flight``.
    sample : bool
        Sample the posterior of the kinematics of the case study, rather than take errors from the curvature.
    """

    old_keys: ClassVar[Mapping[str, str]] = {"resolution": "it is called line_spread now"}

    lines: list[Line] = Field(["Hb", "[OIII]5007", "Ha", "[NII]6583", "[SII]6716", "[SII]6731"], min_length=1)
    metallicity: Metallicity = "PP04_N2"
    star_formation: Literal["KE12_Ha", "K98_Ha"] = "KE12_Ha"
    dust_law: Literal["CCM89", "O94", "F99", "G23", "SMC"] = "CCM89"
    continuum_rest_um: tuple[Positive, Positive] = (0.508, 0.62)
    bin_snr: Annotated[float, Field(gt=0, le=1000)] = 10.0
    ring_arcsec: Annotated[float, Field(gt=0.01, le=10)] = 0.2
    rings_to_arcsec: Annotated[float, Field(gt=0.1, le=30)] = 1.2
    centre_moved_arcsec: Positive = 0.15
    line_spread: LineSpreadName | None = None
    sample: bool = True

    @model_validator(mode="after")
    def _can_be_measured(self) -> ScienceSettings:
        if "Ha" not in self.lines:
            raise ValueError("lines: Ha must be among them, as the disc is fitted to it")
        if self.continuum_rest_um[0] >= self.continuum_rest_um[1]:
            raise ValueError("continuum_rest_um: the first wavelength must be shorter than the second")
        if self.rings_to_arcsec < 3 * self.ring_arcsec:
            raise ValueError("rings_to_arcsec: there must be three rings at least")
        return self
