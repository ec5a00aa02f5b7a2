"""Path loss and bar shadow of calibrated slits, pixel by pixel, with jwst's own functions and CRDS references."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.ndimage import map_coordinates

from msa3d.errors import ProductError
from msa3d.reduce.slit import PITCH_IN_OPENINGS, CalSlit

BAR_SHAPE = (1001, 101)
"""Positions and wavelengths of a barshadow reference: ``jwst.barshadow`` is written for these."""
POINT_STELLARITY = 0.75
"""Sources above it, or with a negative value, are points: the rule of jwst's srctype step."""


# --- path loss


@dataclass(frozen=True, eq=False)
class Aperture:
    """Path loss of one aperture of the reference.

    Attributes
    ----------
    name : str
        ``MOS1x1`` or ``MOS1x3``.
    wave_um, uniform : numpy.ndarray, shape (n,)
        Wavelength and transmission of light that fills the slit.
    point : numpy.ndarray, shape (n, n_y, n_x)
        Transmission of a point by its place in the shutter.
    point_wcs : types.SimpleNamespace
        ``crpix1`` ... ``cdelt3`` of `point`.
    """

    name: str
    wave_um: np.ndarray
    uniform: np.ndarray
    point: np.ndarray
    point_wcs: SimpleNamespace


@dataclass(frozen=True, eq=False)
class Pathloss:
    """Path loss of a CRDS reference.

    Attributes
    ----------
    name : str
        Of the file.
    one, three : Aperture
        For one open shutter, and for three or more.
    """

    name: str
    one: Aperture
    three: Aperture

    @classmethod
    def read(cls, path: Path) -> Pathloss:
        """Read a reference of type ``pathloss``.

        Parameters
        ----------
        path : pathlib.Path
            The file.

        Returns
        -------
        Pathloss

        Raises
        ------
        ProductError
            If it lacks the apertures MOS1x1 and MOS1x3.
        """
        from jwst.pathloss.pathloss import calculate_pathloss_vector
        from stdatamodels.jwst import datamodels

        found = {}
        with datamodels.PathlossModel(str(path)) as model:
            names = [entry.name for entry in model.apertures]
            missing = {"MOS1X1", "MOS1X3"} - {name.upper() for name in names}
            if missing:
                raise ProductError(f"{path}: no aperture {', '.join(sorted(missing))}, only {', '.join(names)}")
            for entry in model.apertures:
                uniform = np.array(entry.uniform_data, dtype=float)
                wave_m, transmission, _ = calculate_pathloss_vector(uniform, entry.uniform_wcs, 0.0, 0.0)
                keys = [f"{word}{axis}" for word in ("crpix", "crval", "cdelt") for axis in (1, 2, 3)]
                wcs = SimpleNamespace(**{key: getattr(entry.pointsource_wcs, key) for key in keys})
                point = np.array(entry.pointsource_data, dtype=float)
                wave_um = np.asarray(wave_m, dtype=float) * 1e6
                found[entry.name.upper()] = Aperture(entry.name, wave_um, transmission, point, wcs)
        return cls(path.name, found["MOS1X1"], found["MOS1X3"])

    def uniform(self, n_open: int) -> tuple[np.ndarray, np.ndarray, str]:
        """Wavelength (um), transmission and name of the aperture for light that fills the slit.

        Parameters
        ----------
        n_open : int
            Number of open shutters. As in jwst: 1 takes MOS1x1, 3 and more MOS1x3 (there is no reference for
            longer slitlets: known issue NS-MOS03), 2 the mean of both.
        """
        if n_open == 2:
            between = 0.5 * (self.one.uniform + np.interp(self.one.wave_um, self.three.wave_um, self.three.uniform))
            return self.one.wave_um, between, "MOS1x1+MOS1x3"
        chosen = self.one if n_open == 1 else self.three
        return chosen.wave_um, chosen.uniform, chosen.name

    def point(self, state: str, x: float, y: float) -> tuple[np.ndarray, np.ndarray, str] | None:
        """Wavelength (um), transmission and name of the aperture for a point.

        Parameters
        ----------
        state : str
            SHUTSTA. MOS1x1 is taken where both neighbours of the source's shutter are closed, as in jwst.
        x, y : float
            SRCXPOS, SRCYPOS: place in the shutter.

        Returns
        -------
        tuple or None
            None where the place is outside the reference's range, or no light passes.
        """
        from jwst.pathloss.pathloss import (
            calculate_pathloss_vector,
            shutter_above_is_closed,
            shutter_below_is_closed,
        )

        alone = shutter_below_is_closed(state) and shutter_above_is_closed(state)
        chosen = self.one if alone else self.three
        wave_m, transmission, inside = calculate_pathloss_vector(chosen.point, chosen.point_wcs, x, y)
        if not inside or not np.all(transmission > 0):
            return None
        return np.asarray(wave_m, dtype=float) * 1e6, transmission, chosen.name

    def correct(self, slit: CalSlit, source: str) -> dict[str, object]:
        """Divide a slit by its path loss, at the wavelength of every pixel.

        Pixels beyond the wavelengths of the reference are flagged DO_NOT_USE and stay as they are.

        Parameters
        ----------
        slit : CalSlit
            Changed in place.
        source : str
            ``uniform``, ``auto`` or ``point`` (`msa3d.reduce.settings.CalPathloss`).

        Returns
        -------
        dict
            ``pathloss`` (``uniform`` or ``point``), ``aperture``, ``transmission`` (its median).
        """
        found = None
        if source == "point" or (source == "auto" and is_point(slit)):
            place = (float(slit.header.get(key, 0.0)) for key in ("SRCXPOS", "SRCYPOS"))
            found = self.point(slit.state, *place)
        kind = "uniform" if found is None else "point"
        wave_um, transmission, aperture = found or self.uniform(slit.n_open)
        at = np.interp(slit.wave_um, wave_um, transmission, left=np.nan, right=np.nan)
        slit.flag(slit.usable & ~np.isfinite(at))
        where = slit.usable
        slit.divide(at, where)
        return {"pathloss": kind, "aperture": aperture, "transmission": _median(at[where])}


def is_point(slit: CalSlit) -> bool:
    """Whether SRCTYPE or, without it, the stellarity says that the source is a point."""
    kind = str(slit.header.get("SRCTYPE", "")).strip().upper()
    if kind in ("POINT", "EXTENDED"):
        return kind == "POINT"
    stellarity = float(slit.header.get("STLARITY", 0.0))
    return not 0.0 <= stellarity <= POINT_STELLARITY


# --- bar shadow


@dataclass(frozen=True, eq=False)
class BarShadows:
    """Bar shadow of a CRDS reference.

    Attributes
    ----------
    name : str
        Of the file.
    elements : dict of str to numpy.ndarray
        Pieces from which ``jwst.barshadow`` puts the shadow of a slitlet together.
    wave_um, step_um : float
        First wavelength of the pieces, and their step.
    rows : float
        Rows a pitch of the shutters.
    """

    name: str
    elements: dict[str, np.ndarray]
    wave_um: float
    step_um: float
    rows: float

    @classmethod
    def read(cls, path: Path) -> BarShadows:
        """Read a reference of type ``barshadow``.

        Parameters
        ----------
        path : pathlib.Path
            The file.

        Returns
        -------
        BarShadows

        Raises
        ------
        ProductError
            If its images have not the shape that jwst's functions need.
        """
        from stdatamodels.jwst import datamodels

        with _quiet(), datamodels.BarshadowModel(str(path)) as model:
            from jwst.barshadow import bar_shadow

            for name in ("data1x1", "data1x3"):
                if getattr(model, name).shape != BAR_SHAPE:
                    raise ProductError(f"{path}: {name} has the shape {getattr(model, name).shape}, not {BAR_SHAPE}")
            pieces = {key: np.array(value, float) for key, value in bar_shadow.create_shutter_elements(model).items()}
            # jwst lets the last half shutter begin a row late, 1/500 of a pitch: here it begins in its middle.
            pieces["last"] = np.array(model.data1x1[500:1000], dtype=float)
            return cls(path.name, pieces, model.crval1 * 1e6, model.cdelt1 * 1e6, 1.0 / model.cdelt2)

    def transmission(self, state: str, from_middle: np.ndarray, wave_um: np.ndarray) -> np.ndarray:
        """Fraction of uniform light that passes, at places along a slitlet.

        As `jwst.barshadow.bar_shadow`, but that the middle of the slitlet is known from its shutters (jwst takes
        the mean position of all pixels) and that the interpolation is not a loop.

        Parameters
        ----------
        state : str
            SHUTSTA: a letter a shutter.
        from_middle : numpy.ndarray
            Position along the slit, in openings from the middle of the slitlet.
        wave_um : numpy.ndarray
            Wavelengths, of the same shape.

        Returns
        -------
        numpy.ndarray
            NaN where the wavelength is; beyond the reference's wavelengths, the value at their end.
        """
        from jwst.barshadow.bar_shadow import create_shadow

        shadow = create_shadow(self.elements, state)
        middle = shadow.shape[0] - self.rows * (len(state) + 1) / 2
        row = middle + from_middle / PITCH_IN_OPENINGS * self.rows
        column = (wave_um - self.wave_um) / self.step_um
        known = np.isfinite(row) & np.isfinite(column)
        values = np.full(np.shape(row), np.nan)
        values[known] = map_coordinates(shadow, [row[known], column[known]], order=1, mode="nearest")
        return values

    def correct(self, slit: CalSlit, min_transmission: float) -> tuple[np.ndarray, dict[str, object]]:
        """Divide a slit by its bar shadow in the open area; flag DO_NOT_USE what is too dark, as it is.

        Parameters
        ----------
        slit : CalSlit
            Changed in place.
        min_transmission : float
            Least fraction of the light.

        Returns
        -------
        transmission : numpy.ndarray, shape (ny, nx)
            What the slit was divided by; NaN where it was not.
        statistics : dict
            ``shadow_min`` (least transmission of a corrected pixel), ``shadowed`` (pixels flagged).
        """
        at = self.transmission(slit.state, slit.from_middle, slit.wave_um)
        bright = slit.inside() & (at >= min_transmission)
        shadowed = slit.flag(~bright)
        where = slit.usable
        slit.divide(at, where)
        darkest = float(at[where].min()) if where.any() else np.nan
        return np.where(where, at, np.nan), {"shadow_min": darkest, "shadowed": shadowed}


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else float("nan")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave the level of jwst's logger as it was: importing bar_shadow sets it to DEBUG."""
    logger = logging.getLogger("jwst.barshadow.bar_shadow")
    level = logger.level
    try:
        yield
    finally:
        logger.setLevel(level)
