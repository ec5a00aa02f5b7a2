"""Sub-commands for cubes that are made: export them to other programs, extract a spectrum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from msa3d.cube.aperture import Aperture
    from msa3d.cube.cubefile import Cube

CubeFile = Annotated[Path, typer.Argument(metavar="CUBE", help="A cube (s3d); it is never written to.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The file to write.  [default: beside the cube, under a name of its own]"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another file of that name.")]


def add_to(app: typer.Typer) -> None:
    """Add these sub-commands to a command.

    Parameters
    ----------
    app : typer.Typer
        The command.
    """
    for command in (export, extract):
        app.command()(command)


def export(
    cube: CubeFile,
    to: Annotated[str, typer.Option(help="mpdaf, or plain: no more than FITS, no NaN.")] = "plain",
    out: Out = None,
    unit: Annotated[str, typer.Option(help="Of the wavelengths: Angstrom, nm, um or m.")] = "Angstrom",
    keep_nan: Annotated[bool, typer.Option("--keep-nan", help="Leave NaN in a plain copy.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Copy a cube into a file for mpdaf, or for programs that know plain FITS only."""
    from msa3d.cube.export import export as write

    written = write(cube, to, out, unit=unit, keep_nan=keep_nan, overwrite=overwrite)
    typer.echo(f"{written}: written")


def extract(
    cube: CubeFile,
    ra: Annotated[float | None, typer.Option(help="Centre, deg.  [default: the middle of the brightest]")] = None,
    dec: Annotated[float | None, typer.Option(help="Centre, deg.")] = None,
    radius: Annotated[float | None, typer.Option(help="Radius, or semi-major axis (Re, say), arcsec.")] = None,
    axis_ratio: Annotated[float | None, typer.Option(help="Minor over major axis.")] = None,
    inclination: Annotated[float | None, typer.Option(help="Instead of it: inclination of a disc, deg.")] = None,
    pa: Annotated[float, typer.Option(help="Position angle of the major axis, deg east of north.")] = 0.0,
    mask: Annotated[Path | None, typer.Option(help="Instead of all that: a FITS image, 0 to 1 a spaxel.")] = None,
    srctype: Annotated[
        str, typer.Option(help="What readers show: POINT, the flux; EXTENDED, the brightness.")
    ] = "POINT",
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Take the spectrum of a circle, an ellipse or a mask, with errors that know the covariance (x1d)."""
    if mask is not None and (ra, dec, radius, axis_ratio, inclination) != (None,) * 5:
        raise typer.BadParameter("--mask is an aperture of its own: give no centre and no size with it")
    if mask is None and radius is None:
        raise typer.BadParameter("give the aperture: --radius, or --mask")
    if (ra is None) != (dec is None):
        raise typer.BadParameter("--ra and --dec go together")
    if axis_ratio is not None and inclination is not None:
        raise typer.BadParameter("--axis-ratio and --inclination say the same twice: give one")
    if srctype not in ("POINT", "EXTENDED"):
        raise typer.BadParameter("--srctype is POINT or EXTENDED")
    from msa3d.cube.cubefile import open_cube
    from msa3d.cube.extract import extract as take
    from msa3d.errors import ProductError

    out = out or cube.with_name(f"{cube.stem.removesuffix('_s3d')}_x1d.fits")
    if out.exists() and (out.samefile(cube) or not overwrite):
        raise ProductError(f"{out} exists: give the spectrum another name (--out), or say --overwrite")
    opened = open_cube(cube)
    aperture = _aperture(opened, mask, (ra, dec), radius, (axis_ratio, inclination, pa))
    spectrum = take(opened, aperture)
    typer.echo(f"{spectrum.write(out, srctype)}: {spectrum.aperture}, {spectrum.weights.sum():.1f} spaxels")


def _aperture(
    cube: Cube,
    mask: Path | None,
    centre: tuple[float | None, float | None],
    radius: float | None,
    shape: tuple[float | None, float | None, float],
) -> Aperture:
    """Make the aperture that the options describe."""
    from msa3d.cube.aperture import Ellipse, Mask
    from msa3d.cube.extract import brightest

    if mask is not None:
        return Mask.read(mask)
    ra, dec = brightest(cube) if centre[0] is None else centre
    axis_ratio, inclination, pa = shape
    if inclination is not None:
        return Ellipse.inclined(ra, dec, radius, inclination, pa)
    return Ellipse(ra, dec, radius, 1.0 if axis_ratio is None else axis_ratio, pa)
