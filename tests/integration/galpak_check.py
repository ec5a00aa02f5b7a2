"""GalPaK 3D on the same part of a cube: a second opinion on a disc, by other people's code.

GalPaK knows a point spread and a Gaussian line spread, but no slit: light beside the slit's middle is not shifted
in its model. It cannot know what noise neighbouring voxels share either. Agreement within a
few times the errors of `kinematics` is what to expect, not more.
"""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

import numpy as np
from astropy.io import fits

from msa3d.constants import C_KMS, LINES
from msa3d.cubes.cube import Cube
from msa3d.cubes.psf import effective_psf
from msa3d.errors import ProductError
from msa3d.galaxy.lines import FWHM_PER_SIGMA, line_spread_of

REACH_KMS = 450.0

ASPECT = 0.15
"""Thickness over half-light radius, GalPaK's own default: thinner discs fall between its voxels."""


def galpak_check(
    cube: Cube,
    redshift: float,
    *,
    ra: float,
    dec: float,
    inclination_deg: float,
    pa_deg: float,
    start: dict[str, float] | None = None,
    line: str = "Ha",
    iterations: int = 600,
    seconds: int = 60,
    seed: int = 0,
) -> dict[str, float]:
    """Fit GalPaK's exponential disc with an arctan curve, the inclination held.

    Parameters
    ----------
    cube : Cube
        Of the drizzle builder, with errors.
    redshift : float
        Of the galaxy.
    ra, dec : float
        Centre, ICRS, deg.
    inclination_deg : float
        Held fixed: kinematics of a disc seen face on do not tell it.
    pa_deg : float
        First guess of the position angle of the receding half of the major axis.
    start : dict of str to float, optional
        First guesses of ``v_sin_i``, ``sigma0`` (km/s) and ``r_turn`` (arcsec), as `DiscFit.best`: its chain needs
        ten thousand steps and more from far away, which do not fit into the time.
    line : str
        Key of `msa3d.galaxy.lines.LINES`.
    iterations : int
        Of its Markov chain.
    seconds : int
        It is stopped after so long (in the main thread; elsewhere only the iterations bound it).
    seed : int
        Of its random numbers.

    Returns
    -------
    dict of str to float
        ``v_sin_i``, ``sigma0``, ``systemic`` (km/s), ``pa_deg``, ``r_turn`` (arcsec), each with its ``_error``;
        ``sigma_re`` (km/s), the dispersion at the half-light radius, to which GalPaK adds what the disc's thickness
        needs, h V / r: compare this one; and ``chi2`` (reduced, as GalPaK gives it).

    Raises
    ------
    msa3d.errors.ProductError
        If galpak is not installed, the cube has no errors, or the time is up.
    """
    if cube.err is None:
        raise ProductError(f"{cube.name} has no errors: GalPaK needs a cube of the drizzle builder")
    line_um = LINES[line] * (1.0 + redshift)
    data, variance, wave = _part(cube, line_um)
    header = _header(cube, wave)
    with _quiet(seconds, cube.name):
        try:
            import galpak
        except ImportError as error:
            raise ProductError("galpak is not installed: install it for the cross-check, or leave it out") from error
        np.random.seed(seed)  # noqa: NPY002 (GalPaK draws from the global generator)
        spread = line_spread_of(cube.header, step_um=float(wave[1] - wave[0]))
        bins = np.hypot(spread.sigma_um(line_um), (wave[1] - wave[0]) / np.sqrt(12.0))
        instrument = galpak.Instrument(
            psf=galpak.ImagePointSpreadFunction(_cropped(effective_psf(cube, line_um), cube.shape)),
            lsf=galpak.GaussianLineSpreadFunction(fwhm=bins * FWHM_PER_SIGMA),
        )
        model = galpak.DiskModel(rotation_curve="arctan", redshift=redshift, aspect=ASPECT)
        work = galpak.GalPaK3D(
            galpak.HyperspectralCube(data=data, header=header),
            variance=galpak.HyperspectralCube(data=variance, header=header),
            model=model,
            instrument=instrument,
            quiet=True,
        )
        first = _start(cube, data, wave, line_um, (ra, dec), inclination_deg, pa_deg, start or {})
        work.run_mcmc(
            max_iterations=iterations,
            known_parameters=galpak.GalaxyParameters(inclination=inclination_deg),
            initial_parameters=galpak.GalaxyParameters(**first),
            verbose=False,
        )
    return _found(work, wave, line_um, inclination_deg, pa_deg, cube)


def _part(cube: Cube, line_um: float):
    """Cube around the line without continuum, its variance, and wavelengths; evenly spaced."""
    near = np.abs(cube.wave_um / line_um - 1.0) * C_KMS
    inside = near < REACH_KMS
    # Continuum on the blue side, where no other line is, and beyond [NII] on the red one.
    beside = (near > 1300.0) & (near < 2600.0)
    seen = np.isfinite(cube.data[beside]).sum(axis=0) > 3
    level = np.full(cube.shape, np.nan)
    level[seen] = np.nanmedian(cube.data[beside][:, seen], axis=0)
    data, error = cube.data[inside] - level, cube.err[inside]
    known = np.isfinite(data) & np.isfinite(error) & (error > 0)
    largest = np.max(error, where=known, initial=0.0)
    variance = np.where(known, np.where(known, error, 1.0) ** 2, (1e3 * largest) ** 2)
    return np.where(known, data, 0.0), variance, cube.wave_um[inside]


def _header(cube: Cube, wave: np.ndarray) -> fits.Header:
    """What GalPaK reads: positive and negative CDELT without PC."""
    header = fits.Header()
    matrix = cube.wcs.pixel_scale_matrix
    header["CDELT1"], header["CDELT2"], header["CDELT3"] = matrix[0, 0], matrix[1, 1], float(wave[1] - wave[0])
    header["CUNIT1"] = header["CUNIT2"] = "deg"
    header["CUNIT3"], header["CTYPE3"] = "um", "WAVE"
    header["CRPIX3"], header["CRVAL3"] = 1.0, float(wave[0])
    header["BUNIT"] = "MJy/sr"
    return header


def _cropped(kernel: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Kernel in an image of a given size, its middle at n // 2, sum 1: what GalPaK wants."""
    image = np.zeros(shape)
    reach = kernel.shape[0] // 2
    target, source = [], []
    for n in shape:
        low, high = max(n // 2 - reach, 0), min(n // 2 + reach + 1, n)
        target.append(slice(low, high))
        source.append(slice(low - n // 2 + reach, high - n // 2 + reach))
    image[tuple(target)] = kernel[tuple(source)]
    return image / image.sum()


def _start(cube, data, wave, line_um, place, inclination_deg, pa_deg, guess) -> dict[str, float]:
    """First guess, in GalPaK's pixels."""
    x, y = cube.wcs.world_to_pixel_values(*place)
    step = wave[1] - wave[0]
    scale = float(np.sqrt(abs(np.linalg.det(cube.wcs.pixel_scale_matrix)))) * 3600.0
    return {
        "x": float(x),
        "y": float(y),
        "z": float((line_um - wave[0]) / step),
        "flux": float(max(data.sum(), 1e-6)),
        "radius": 5.0,
        "inclination": inclination_deg,
        "pa": pa_deg,
        "turnover_radius": guess.get("r_turn", 0.2) / scale,
        "maximum_velocity": guess.get("v_sin_i", 60.0) / max(np.sin(np.radians(inclination_deg)), 0.1),
        "velocity_dispersion": guess.get("sigma0", 45.0),
    }


def _found(work, wave, line_um, inclination_deg, pa_deg, cube) -> dict[str, float]:
    """Results in our units; a rotation the other way round is turned by 180 deg."""
    best, error = work.galaxy, work.stdev
    sine = np.sin(np.radians(inclination_deg))
    scale = float(np.sqrt(abs(np.linalg.det(cube.wcs.pixel_scale_matrix)))) * 3600.0
    kms = float((wave[1] - wave[0]) / line_um * C_KMS)
    speed, angle = float(best["maximum_velocity"]) * sine, float(best["pa"])
    if speed < 0:
        speed, angle = -speed, angle + 180.0
    if abs((angle - pa_deg + 180.0) % 360.0 - 180.0) > 90.0:
        angle += 180.0
    radius, turn = float(best["radius"]), float(best["turnover_radius"])
    thick = ASPECT * speed / max(sine, 1e-6) * 2.0 / np.pi * np.arctan(radius / turn)
    return {
        "sigma_re": float(np.hypot(best["velocity_dispersion"], thick)),
        "v_sin_i": speed,
        "v_sin_i_error": float(error["maximum_velocity"]) * sine,
        "sigma0": float(best["velocity_dispersion"]),
        "sigma0_error": float(error["velocity_dispersion"]),
        "systemic": (wave[0] + float(best["z"]) * (wave[1] - wave[0]) - line_um) / line_um * C_KMS,
        "systemic_error": float(error["z"]) * kms,
        "pa_deg": (angle + 180.0) % 360.0 - 180.0,
        "pa_deg_error": float(error["pa"]),
        "r_turn": turn * scale,
        "r_turn_error": float(error["turnover_radius"]) * scale,
        "chi2": float(np.squeeze(getattr(work, "best_chisq", np.nan))),
    }


class _TimeUpError(BaseException):
    """No error of GalPaK's, which catches all of its own."""


@contextmanager
def _quiet(seconds: int, name: str):
    """Without a word, and within a time: GalPaK talks through loggers, prints and warnings."""
    late = False

    def stop(*_):
        nonlocal late
        late = True
        raise _TimeUpError

    main = threading.current_thread() is threading.main_thread()
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    old = signal.signal(signal.SIGALRM, stop) if main else None
    try:
        if main:
            # Again every second: what GalPaK catches on its way must not keep it going.
            signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception:
        if not late:
            raise
    except _TimeUpError:
        pass
    finally:
        if main:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, old)
        logging.disable(before)
    if late:
        raise ProductError(f"{name}: GalPaK took more than {seconds} s; give fewer iterations")
