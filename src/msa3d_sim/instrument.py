"""The optical model of NIRSpec's multi-object mode, G140H/F100LP.

ESA's parametric instrument model (``data/nirspec_optics.yaml``) as `astropy.modeling` transforms with the structure
that ``jwst.assign_wcs`` expects, and as plain numbers. Models run from the detectors to the sky, as the pipeline's do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import yaml
from astropy.modeling import Model, models
from stdatamodels.jwst.transforms.models import AngleFromGratingEquation, Rotation3DToGWA, Unitless2DirCos

_DEGREE = 5
_MIDDLE_M = 1.43e-6
"""Wavelength in the middle of the band, m."""
QUADRANTS = (1, 2, 3, 4)
COLUMNS = 365
ROWS = 171
FRAME_SECONDS, FRAMES_PER_GROUP = 14.58889, 5
GROUP_SECONDS = FRAME_SECONDS * FRAMES_PER_GROUP
"""NRSIRS2: five frames of 14.6 s averaged into one group."""


@dataclass(frozen=True)
class ShutterGeometry:
    """Metrology of one quadrant of the microshutter array, in metre on the MSA plane.

    Parameters
    ----------
    quadrant : int
        1 to 4.
    x_m, y_m : float
        Position of the centre of shutter (1, 1).
    rotation_rad : float
        Rotation of the quadrant about that centre, counter-clockwise.
    pitch_m, open_m : tuple of float
        Pitch and open (light-passing) size of a shutter along dispersion and across.
    """

    quadrant: int
    x_m: float
    y_m: float
    rotation_rad: float
    pitch_m: tuple[float, float]
    open_m: tuple[float, float]

    def centre(self, i, j):
        """Centre (m, MSA plane) of shutter (i, j), 1-365 along dispersion and 1-171 across; fractions are allowed."""
        u, v = (np.asarray(i) - 1) * self.pitch_m[0], (np.asarray(j) - 1) * self.pitch_m[1]
        cos, sin = np.cos(self.rotation_rad), np.sin(self.rotation_rad)
        return u * cos - v * sin + self.x_m, u * sin + v * cos + self.y_m


@dataclass(frozen=True)
class InstrumentModel:
    """NIRSpec's optics as `astropy.modeling` transforms, from the content of ``data/nirspec_optics.yaml``."""

    figures: dict

    @classmethod
    def load(cls) -> InstrumentModel:
        """Read the packaged figures (cached)."""
        return _load()

    def camera(self) -> Model:
        """Position on the focal plane (m) to direction cosines after the grating wheel."""
        return self._transform("camera")

    def collimator(self) -> Model:
        """Direction cosines before the grating wheel to position on the MSA (m)."""
        return self._transform("collimator")

    def fore(self) -> Model:
        """Position on the MSA (m) and wavelength (m) to position in the OTE image plane (m).

        The inverse takes the OTE position and the wavelength. The chromatic term of F100LP is zero.
        """
        backward, forward, linear = self._parts("fore")
        linear.inverse = linear.inverse & models.Identity(1)
        split, join = models.Mapping((0, 1, 0, 1), n_inputs=3), models.Identity(2)
        split.inverse, join.inverse = models.Identity(2), models.Mapping((0, 1, 0, 1), n_inputs=3)
        for one, other in zip(backward, forward, strict=True):
            one.inverse = other
        return split | (backward[0] & backward[1]) | join | linear

    def ote(self) -> Model:
        """Position in the OTE image plane (m) to V2, V3 (arcsec)."""
        return self._transform("ote") | models.Scale(3600.0) & models.Scale(3600.0)

    def detector(self, name: str) -> Model:
        """Pixel of NRS1 or NRS2 to position on the focal plane (m).

        Pixels are counted from 0 in the orientation in which the detector is read; the pipeline turns NRS2 by half a
        turn itself.
        """
        d = self.figures["detectors"][name]
        angle = np.rad2deg(d["rotation_rad"]) + (180.0 if name == "NRS2" else 0.0)
        scale = models.Scale(d["pitch_m"]) & models.Scale(d["pitch_m"])
        return scale | models.Rotation2D(angle) | models.Shift(d["x_m"]) & models.Shift(d["y_m"])

    def tilt(self, sensor: str) -> dict:
        """Calibration of a grating wheel sensor, ``gwa_xtilt`` or ``gwa_ytilt``, as in the disperser reference."""
        t = self.figures["grating"][sensor]
        c0, c1 = t["coefficients"]
        return {
            "temperatures": [t["temperature_k"]],
            "tilt_model": models.Polynomial1D(1, c0=c0, c1=c1),
            "unit": "arcsec",
            "zeroreadings": [t["zero_reading"]],
        }

    def shutters(self, quadrant: int) -> ShutterGeometry:
        """Metrology of a quadrant."""
        q = self.figures["msa"]["quadrants"][quadrant]
        return ShutterGeometry(quadrant, q["x_m"], q["y_m"], q["rotation_rad"], tuple(q["pitch_m"]), tuple(q["open_m"]))

    def quadrant(self, quadrant: int) -> Model:
        """Position in a quadrant (m, origin at shutter (1, 1)) to position on the MSA (m)."""
        g = self.shutters(quadrant)
        turn = models.Rotation2D(np.rad2deg(g.rotation_rad))
        return turn | models.Shift(g.x_m) & models.Shift(g.y_m)

    def msa_to_focal_plane(self) -> Model:
        """Position on the MSA (m) and wavelength (m) to position on the focal plane (m).

        With the grating where the model's zero readings put it.
        """
        g, c = self.figures["grating"], self.figures["configuration"]
        angles = [g["theta_x_arcsec"] / 3600, g["theta_y_arcsec"] / 3600, g["theta_z_arcsec"] / 3600]
        turn = Rotation3DToGWA([*angles, g["tilt_y_deg"]], axes_order="xyzy")
        cosines = Unitless2DirCos()
        to_grating = self.collimator().inverse | cosines | turn
        diffract = AngleFromGratingEquation(g["grooves_per_metre"], c["order"])
        to_detector = turn.inverse | cosines.inverse | self.camera().inverse
        order = models.Mapping((3, 0, 1, 2))
        return to_grating & models.Identity(1) | order | diffract | to_detector

    def msa_to_v2v3(self) -> Model:
        """Position on the MSA (m) and wavelength (m) to V2, V3 (arcsec)."""
        return self.fore() | self.ote()

    def slit_width_arcsec(self, quadrant: int, i, j):
        """Open width of shutter (i, j) on the sky, along dispersion, in arcsec."""
        return self._sky_distance(quadrant, i, j, self.shutters(quadrant).open_m[0], 0.0)

    def pixel_scale_arcsec(self, quadrant: int, i, j):
        """Sky length of one detector pixel along the slit at shutter (i, j), in arcsec."""
        x, y = self.shutters(quadrant).centre(i, j)
        step, to_focal_plane = 1e-5, self.msa_to_focal_plane()
        wave = np.full_like(x, _MIDDLE_M)
        _, y1 = to_focal_plane(x, y - step, wave)
        _, y2 = to_focal_plane(x, y + step, wave)
        pixels = np.abs(y2 - y1) / self.figures["detectors"]["NRS1"]["pitch_m"]
        return self._sky_distance(quadrant, i, j, 0.0, 2 * step) / pixels

    def _sky_distance(self, quadrant, i, j, dx_m, dy_m):
        x, y = self.shutters(quadrant).centre(i, j)
        wave, to_sky = np.full_like(x, _MIDDLE_M), self.msa_to_v2v3()
        v2a, v3a = to_sky(x - dx_m / 2, y - dy_m / 2, wave)
        v2b, v3b = to_sky(x + dx_m / 2, y + dy_m / 2, wave)
        return np.hypot((v2b - v2a) * np.cos(np.deg2rad(v3a / 3600)), v3b - v3a)

    def _parts(self, name: str):
        t = self.figures["transforms"][name]

        def pair(direction):
            return [_polynomial(t[f"{direction}_{axis}"], f"{axis}_{direction}") for axis in "xy"]

        return pair("backward"), pair("forward"), _paraxial_to_sky(t)

    def _transform(self, name: str) -> Model:
        backward, forward, linear = self._parts(name)
        for one, other in zip(backward, forward, strict=True):
            one.inverse = other
        split, join = models.Mapping((0, 1, 0, 1)), models.Identity(2)
        split.inverse, join.inverse = models.Identity(2), models.Mapping((0, 1, 0, 1))
        return split | (backward[0] & backward[1]) | join | linear


def _polynomial(coefficients, name: str) -> Model:
    """Polynomial of degree 5 whose 21 coefficients come with the power of x in the outer loop."""
    powers = [(i, j) for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)]
    values = {f"c{i}_{j}": c for (i, j), c in zip(powers, coefficients, strict=True)}
    return models.Polynomial2D(_DEGREE, name=name, **values)


def _paraxial_to_sky(t: dict) -> Model:
    """Shift, rotation and scale from the detector's side to the sky's side of a transform."""
    angle = np.deg2rad(t["rotation_deg"])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag(1 / np.array(t["factor"]))
    (xi, yi), (xo, yo) = t["input_centre"], t["output_centre"]
    to_sky = models.AffineTransformation2D(matrix=matrix)
    return models.Shift(-xo) & models.Shift(-yo) | to_sky | models.Shift(xi) & models.Shift(yi)


def _read(name: str) -> dict:
    text = resources.files("msa3d_sim").joinpath("data", name).read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@cache
def _load() -> InstrumentModel:
    return InstrumentModel(_read("nirspec_optics.yaml"))


@cache
def _operability() -> dict:
    return _read("operability.yaml")


def failed_open() -> np.ndarray:
    """Shutters that never close, shape (n, 3), int: quadrant 1-4, i 1-365 (along dispersion), j 1-171."""
    rows = [(q, i, j) for q, pairs in _operability()["failed_open"].items() for i, j in pairs]
    return np.array(sorted(rows), dtype=int)


@cache
def failed_closed() -> np.ndarray:
    """Shutters that never open (or are masked or vignetted), as `failed_open`; read-only."""
    found = []
    for quadrant, text in _operability()["failed_closed"].items():
        lengths = np.array([int(word, 36) for word in text.split()])
        state = np.repeat(np.arange(lengths.size) % 2, lengths).astype(bool)
        if state.size != COLUMNS * ROWS:
            raise ValueError(f"operability.yaml: quadrant {quadrant} has {state.size} shutters")
        number = np.flatnonzero(state)
        found.append(np.stack([np.full(number.size, quadrant), number % COLUMNS + 1, number // COLUMNS + 1], 1))
    table = np.concatenate(found)
    table.flags.writeable = False
    return table


def exposure_seconds(groups: int) -> float:
    """Effective integration time of one exposure (s)."""
    return groups * GROUP_SECONDS
