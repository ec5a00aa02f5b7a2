"""Figures of a cube: collapsed images of all galaxies, and the spectrum of an aperture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from scipy.ndimage import binary_dilation, binary_opening, gaussian_filter1d, median_filter

from msa3d.closure.images import TruthImage
from msa3d.config import Dataset, Target
from msa3d.constants import C_KMS, LINES
from msa3d.cubes.cube import Cube, open_cube
from msa3d.figures import style
from msa3d.figures.lines import FLUX_COLUMN, FLUX_LABEL, FLUX_UNIT
from msa3d.figures.maps import (
    HALF_ARCSEC,
    ZOOMS,
    draw_map,
    label_sky,
    map_bar,
    map_shape,
    map_table,
    mark_map,
    mark_spectrum,
    target_of,
)
from msa3d.galaxy.images import (
    HALF_KMS,
    MICROJANSKY_PER_MEGAJANSKY,
    collapsed_image,
    integrated_spectrum,
    line_image,
    observed,
    well_observed,
)
from msa3d.galaxy.lines import line_spread_of, to_line_flux
from msa3d.observation.source import cube_path
from msa3d.pipeline.layout import Layout

RADIUS_ARCSEC = 0.8
"""Of the aperture of spectra, around the place of the target."""
MOST_ROWS = 5
LEAST_DEPTH = 0.5
"""Spaxels seen for less than that part of the usual exposure time are hatched."""
EDGE, SHORTEST = 12, 100
"""Wavelengths left out beside the ends and gaps of a spectrum; shorter pieces between them are left out whole."""
SKY_FROM = 0.8
"""The background is taken in the spaxels beyond this quantile of the distances from the target."""


@style.house_style()
def plot_collapsed(layout: Layout, dataset: Dataset, source_id: int | None = None) -> Figure:
    """Draw continuum, Ha and its signal to noise of all galaxies on common scales, or of one."""
    targets = [dataset.target(source_id)] if source_id is not None else list(dataset.targets)[:MOST_ROWS]
    cubes = [open_cube(cube_path(layout, dataset, target.source_id)) for target in targets]
    images = [_collapsed(cube, target) for cube, target in zip(cubes, targets, strict=True)]
    half = HALF_ARCSEC + 0.3
    shapes = [map_shape(cube, (t.ra, t.dec), half) for cube, t in zip(cubes, targets, strict=True)]
    wide = (style.FULL_WIDTH - 2.9) / 3
    figure = style.new_figure(style.FULL_WIDTH, sum(wide * shape + 0.25 for shape in shapes) + 0.75)
    grid = figure.subplots(len(targets), 3, squeeze=False, height_ratios=shapes)
    tops = [max(style.percentile_limits(each[k], 1.0, 99.7)[1] for each in images) for k in range(3)]
    titles = ("a  continuum (MJy/sr)", f"b  H\u03b1\n({FLUX_LABEL})", "c  S/N of H\u03b1 per spaxel")
    for row, (target, cube, three) in enumerate(zip(targets, cubes, images, strict=True)):
        centre = (target.ra, target.dec)
        true = _true_images(layout.truth / f"truth_s{target.source_id:05d}.fits", cube)
        for axes, image, top, title, truth in zip(grid[row], three, tops, titles, (*true, None), strict=True):
            mesh = draw_map(axes, cube, image, centre, half=half, **_stretched(top))
            label_sky(axes, east=row == len(targets) - 1, north=axes is grid[row, 0])
            map_bar(figure, mesh, axes, "", "both")
            if row == 0:
                axes.set_title(title)
            if truth is not None:
                east, north = cube.offsets(*centre)
                levels = np.nanmax(truth) * np.array([0.1, 0.3, 0.6])
                axes.contour(east, north, truth, levels=levels, colors=style.SKY, linewidths=0.8, zorder=2.5)
        mark_map(grid[row, 0], cube, target.redshift)
        name = style.literal(target.name or target.source_id)
        grid[row, 0].set_ylabel(f"{name}\n{grid[row, 0].get_ylabel()}")
    names = ", ".join(target.name or str(target.source_id) for target in targets)
    put = " Blue contours: the injected image, convolved with PSF and slit, at 10, 30 and 60% of its peak." if any(
        (layout.truth / f"truth_s{t.source_id:05d}.fits").is_file() for t in targets) else ""  # fmt: skip
    return style.finish(
        figure,
        simulated=any(cube.simulated for cube in cubes),
        alt=f"Maps of {names}, a row each: the continuum is a round to elongated patch brightest at the centre, "
        f"H-alpha lies on top of "
        "it, and its signal to noise falls outwards to below 3.",
        caption=f"Cubes of {names} collapsed along wavelength. (a) Mean of all wavelengths minus the background at "
        f"the ends of the "
        f"slitlets. (b) H\u03b1 within \u00b1{HALF_KMS:g} km/s, continuum subtracted. (c) Its signal to noise per "
        f"spaxel. Each column has one "
        f"scale, by the square root.{put} Hatched: exposed for less than half of the usual time. Grey ellipse: FWHM "
        "of the PSF.",
        data={
            t.name or str(t.source_id): map_table(
                cube, (t.ra, t.dec),
                dict(zip(("continuum [MJy/sr]", f"Ha {FLUX_COLUMN}", "snr"), three, strict=True)),
            )
            for t, cube, three in zip(targets, cubes, images, strict=True)
        },
    )  # fmt: skip


def _stretched(top: float) -> dict:
    """Colours from zero to a value by its square root, so that faint and bright galaxies are seen on one scale."""
    return {"cmap": style.colour_map(style.FLUX_MAP), "norm": PowerNorm(0.5, 0.0, top)}


def _collapsed(cube: Cube, target: Target) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Continuum minus sky (MJy/sr), Ha (in `FLUX_UNIT`) and its signal to noise; NaN where hardly observed."""
    deep = well_observed(cube, LEAST_DEPTH)
    image = collapsed_image(cube)
    continuum = np.where(deep, image - np.nanmedian(image[_outside(cube, target) & deep]), np.nan)
    wave_um = LINES["Ha"] * (1.0 + target.redshift)
    halpha = np.where(deep, line_image(cube, wave_um) / FLUX_UNIT, np.nan)
    return continuum, halpha, halpha / (line_error(cube, wave_um) / FLUX_UNIT)


def _outside(cube: Cube, target: Target) -> np.ndarray:
    """Spaxels farthest from the target, which show the background best."""
    distance = np.hypot(*cube.offsets(target.ra, target.dec))
    seen = observed(cube)
    return seen & (distance >= np.quantile(distance[seen], SKY_FROM)) if seen.any() else seen


def line_error(cube: Cube, wave_um: float) -> np.ndarray:
    """Error of `msa3d.galaxy.images.line_image`, its continuum left out; erg s-1 cm-2 arcsec-2, NaN without errors."""
    if cube.err is None:
        return np.full(cube.shape, np.nan)
    near = np.abs(cube.wave_um / wave_um - 1.0) * C_KMS <= HALF_KMS
    shared = cube.spectral_correlation
    factor = 1.0 if shared is None else max(1.0 + 2.0 * float(shared[1:].sum()), 0.1)
    step = float(np.median(np.diff(cube.wave_um)))
    return to_line_flux(np.sqrt(factor * np.sum(cube.err[near] ** 2, axis=0)) * step, wave_um)


def _true_images(path: Path, cube: Cube) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Injected continuum and Ha convolved with PSF and slit, at the spaxels; None where there is no truth."""
    if not path.is_file() or "SLITPA" not in cube.header:
        return None, None
    with fits.open(path) as hdus:
        if "OBS_HA" not in hdus:
            return None, None
        wcs = WCS(hdus["SCI"].header).celestial
        light = np.mean(hdus["SCI"].data, axis=0, dtype=float)
    pixel = float(proj_plane_pixel_scales(wcs)[1]) * 3600.0
    slit = (cube.header["SLITWID"], cube.header["SLITLEN"], cube.header["SLITPA"])
    seen = (TruthImage(light, wcs, pixel), TruthImage.read(path))
    return tuple(image.through_slit(*slit).at(*cube.spaxel_sky()) for image in seen)


@style.house_style()
def plot_integrated(
    layout: Layout,
    dataset: Dataset,
    source_id: int | None = None,
    *,
    truth: Cube | None = None,
    radius_arcsec: float = RADIUS_ARCSEC,
) -> Figure:
    """Draw the spectrum of a circular aperture, whole and around the lines, minus background, over the truth."""
    target = target_of(dataset, source_id)
    cube = open_cube(cube_path(layout, dataset, target.source_id))
    wave, flux, error, count = aperture(cube, target, radius_arcsec, sky=True)
    true = None if truth is None else _seen_spectrum(truth, cube, target, radius_arcsec, count)
    figure = style.new_figure(style.FULL_WIDTH, 5.6 if true is not None else 4.6)
    rows = [["whole", "whole"], *([["rest", "rest"]] if true is not None else []), ["blue", "red"]]
    grid = figure.subplot_mosaic(rows, height_ratios=[2.0, 0.8, 2.2] if true is not None else [2.0, 2.2])
    curves = wave, flux, error, true
    _draw(grid["whole"], curves, (wave[0], wave[-1]), target.redshift, names=False)
    name = target.name or str(target.source_id)
    grid["whole"].set_title(f"a  {style.literal(name)}, within {radius_arcsec:g}\u2033 ({count} spaxels)")
    grid["whole"].legend(loc="upper left", ncols=3)
    if true is not None:
        _residuals(grid["rest"], grid["whole"], curves)
    for letter, key, (first, last) in zip("bc", ("blue", "red"), ZOOMS, strict=True):
        low, high = (LINES[n] * (1 + target.redshift) for n in (first, last))
        margin = 0.3 * (high - low) + 0.004
        _draw(grid[key], curves, (low - margin, high + margin), target.redshift, names=True)
        grid[key].set_title(letter, pad=16)
    columns = {
        "wavelength [um]": wave,
        "flux density [uJy]": flux,
        "error [uJy]": np.full(wave.size, np.nan) if error is None else error,
    }
    put = ""
    if true is not None:
        columns["injected [uJy]"] = true
        put = (
            " Orange: the injected spectrum in the same spaxels, convolved with the line-spread function. Middle: "
            "observed minus injected, in "
            "units of the error."
        )
    return style.finish(
        figure,
        simulated=cube.simulated,
        alt=f"Spectrum of {name} within {radius_arcsec:g} arcsec from {wave[0]:.2f} to {wave[-1]:.2f} micrometre: a "
        f"faint continuum with a "
        "gap between the detectors, and emission lines, of which H-alpha is the brightest. Two enlarged panels show "
        "H-beta and [O III], and "
        "H-alpha with [N II] and [S II].",
        caption=f"Integrated spectrum of {name}. (a) Sum of the {count} spaxels within {radius_arcsec:g}\u2033, "
        f"background of the outer "
        "spaxels subtracted; band: 1\u03c3, correlation between spaxels included. (b, c) Enlarged around H\u03b2 and "
        "[O III], and around H\u03b1, [N II] "
        f"and [S II].{put} Wavelengths at which less than nine tenths of the aperture were recorded, and those of "
        f"more than three times the usual "
        "error (the ends, and the gap between the detectors), are left out.",
        data={"a-c": columns},
    )


def aperture(cube: Cube, target: Target, radius_arcsec: float = RADIUS_ARCSEC, *, sky: bool = False) -> tuple:
    """Spectrum of a circle.

    Parameters
    ----------
    cube : Cube
        The cube.
    target : Target
        Where the circle lies.
    radius_arcsec : float
        Its radius.
    sky : bool
        Subtract the background of the outermost spaxels, smoothed, and leave out wavelengths that are recorded badly.

    Returns
    -------
    wave_um, flux_ujy : ndarray, shape (n_wave,)
        Wavelength and flux density; NaN where not known.
    error_ujy : ndarray, shape (n_wave,), or None
        1 sigma; None of a cube without errors.
    count : int
        Number of spaxels.
    """
    spectrum = integrated_spectrum(cube, target.ra, target.dec, radius_arcsec)
    flux = spectrum.flux_ujy.copy()
    inside = (np.hypot(*cube.offsets(target.ra, target.dec)) <= radius_arcsec) & observed(cube)
    error = cube.sum_error(inside)
    if error is not None:
        error = np.where(np.isfinite(flux), error * cube.pixel_sr * MICROJANSKY_PER_MEGAJANSKY, np.nan)
    if sky:
        around = cube.data[:, _outside(cube, target) & well_observed(cube, LEAST_DEPTH)]
        level = _smooth_median(around) * spectrum.n_spaxels * cube.pixel_sr * MICROJANSKY_PER_MEGAJANSKY
        flux -= level
        bad = np.isfinite(cube.data[:, inside]).mean(axis=1) < 0.9
        if error is not None:
            bad |= ~(error < 3.0 * np.nanmedian(error))
        bad = binary_dilation(bad | ~np.isfinite(flux), iterations=EDGE, border_value=1)
        bad = ~binary_opening(~bad, np.ones(SHORTEST))
        flux[bad] = np.nan
        if error is not None:
            error = np.where(bad, np.nan, error)
    return spectrum.wave_um, flux, error, spectrum.n_spaxels


def _smooth_median(spectra: np.ndarray, width: int = 51) -> np.ndarray:
    """Median over spaxels, then over neighbouring wavelengths, (n_wave,); 0 where nothing is known."""
    known = np.isfinite(spectra)
    middle = np.full(spectra.shape[0], np.nan)
    some = known.any(axis=1)
    middle[some] = np.nanmedian(spectra[some], axis=1)
    filled = (
        np.interp(np.arange(middle.size), np.flatnonzero(some), middle[some]) if some.any() else np.zeros(middle.size)
    )
    return median_filter(filled, size=width, mode="nearest")


def _seen_spectrum(truth: Cube, cube: Cube, target: Target, radius_arcsec: float, count: int) -> np.ndarray:
    """Injected spectrum of the circle on the cube's wavelengths, convolved with the line-spread function."""
    true = integrated_spectrum(truth, target.ra, target.dec, radius_arcsec)
    step = float(np.median(np.diff(true.wave_um)))
    spread = line_spread_of(cube.header, step_um=float(np.median(np.diff(cube.wave_um))))
    sigma = spread.sigma_um(LINES["Ha"] * (1.0 + target.redshift)) / step
    seen = gaussian_filter1d(np.nan_to_num(true.flux_ujy), sigma, mode="nearest") * count / true.n_spaxels
    return np.interp(cube.wave_um, true.wave_um, seen)


def _draw(axes: Axes, curves: tuple, limits: tuple[float, float], redshift: float, *, names: bool) -> None:
    """Draw a spectrum with its error over a range, the truth behind it, the lines marked, and named when asked."""
    wave, flux, error, true = curves
    inside = (wave >= limits[0]) & (wave <= limits[1])
    if error is not None:
        axes.fill_between(
            wave[inside],
            (flux - error)[inside],
            (flux + error)[inside],
            step="mid",
            color=style.SKY,
            alpha=0.5,
            linewidth=0,
        )
    axes.step(wave[inside], flux[inside], where="mid", color=style.BLUE, linewidth=0.9, label="observed", zorder=3)
    if true is not None:
        shown = np.where(np.isfinite(flux), true, np.nan)[inside]
        axes.plot(
            wave[inside], shown, color=style.TRUTH_COLOUR, linewidth=1.5, label="injected", zorder=4 if names else 3.5
        )
    values = flux[inside]
    values = values[np.isfinite(values)]
    if values.size:
        low, high = np.percentile(values, [0.5, 100.0 if names else 99.97])
        axes.set_ylim(min(0.0, low) - 0.05 * (high - low), high + 0.15 * (high - low))
    mark_spectrum(axes, limits, redshift, names=names)


def _residuals(axes: Axes, above: Axes, curves: tuple) -> None:
    """Draw observed minus injected over the error."""
    wave, flux, error, true = curves
    above.tick_params(labelbottom=False)
    above.set_xlabel("")
    axes.sharex(above)
    scale = np.nanstd(flux - true) if error is None else error
    axes.axhspan(-1.0, 1.0, color=style.EMPTY_COLOUR, linewidth=0)
    axes.plot(wave, (flux - true) / scale, ".", color=style.BLUE, markersize=1.5, rasterized=True)
    axes.axhline(0.0, color=style.TRUTH_COLOUR, linewidth=1.0)
    axes.set(ylim=(-5.0, 5.0), ylabel="residual / \u03c3", xlabel="vacuum wavelength (\u00b5m)")
