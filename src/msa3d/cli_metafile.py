"""Sub-commands for the MSA metafile: check it, and edit a copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from msa3d.observation.metafile import MsaFile


File = Annotated[Path, typer.Argument(help="An MSA metafile (jw*_msa.fits); it is never written to.")]
Copy = Annotated[Path, typer.Argument(help="Where the edited copy goes.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another file of the copy's name.")]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Check an MSA metafile, or edit a copy of it; what changed is listed.",
)


def write_copy(before: MsaFile, after: MsaFile, copy: Path, overwrite: bool) -> None:
    """Write an edited metafile, list what changed (also in its HISTORY), and warn of what is wrong with it now."""
    from msa3d.observation.metafile_edit import changes
    from msa3d.pipeline.products import stamp

    found = changes(before, after)
    stamp(after.header, inputs=[before.path] if before.path else (), step="msa", history=found)
    after.header["FILENAME"] = copy.name
    after.write(copy, overwrite=overwrite)
    typer.echo(f"{copy}: written, {len(found)} changes")
    for sentence in found:
        typer.echo(f"  {sentence}")
    for problem in sorted({str(p) for p in after.check()} - {str(p) for p in before.check()}):
        typer.echo(f"  new {problem}")


def read(path: Path) -> MsaFile:
    """Read a metafile."""
    from msa3d.observation.metafile import MsaFile

    return MsaFile.read(path)


@app.command()
def check(path: File) -> None:
    """Name duplicate slitlets, invalid rows, sources without coordinates and other contradictions."""
    msa = read(path)
    problems = msa.check()
    typer.echo(f"{path}: {len(msa.shutters)} shutter rows, {len(msa.sources)} sources, {len(problems)} problems")
    for problem in problems:
        typer.echo(f"  {problem}")


@app.command()
def slitlets(path: File) -> None:
    """List the slitlets: id, source, quadrant, row, columns."""
    for one in read(path).slitlets():
        columns = f"{one.columns[0]}-{one.columns[-1]}"
        typer.echo(
            f"slitlet {one.slitlet_id:4d}  source {one.source_id:8d}  quadrant {one.quadrant}  row {one.row:3d}  "
            f"columns {columns:9s} {len(one.columns)} shutters"
        )


@app.command()
def ids(
    path: File,
    copy: Copy,
    shorten: Annotated[
        str, typer.Option(help="Also take the 'first' or 'last' three digits off ids of 100000 and more.")
    ] = "",
    overwrite: Overwrite = False,
) -> None:
    """Give every row of a slitlet the id of its source, as the paper does; ids never collide."""
    if shorten not in ("", "first", "last"):
        raise typer.BadParameter("--shorten is first or last")
    from msa3d.observation import metafile_edit

    msa = read(path)
    write_copy(msa, metafile_edit.transform_ids(msa, shorten or None), copy, overwrite)


@app.command()
def keep(
    path: File,
    copy: Copy,
    source_ids: Annotated[list[int], typer.Argument(help="The sources whose slitlets stay.")],
    overwrite: Overwrite = False,
) -> None:
    """Keep the slitlets of some sources only."""
    msa = read(path)
    write_copy(msa, msa.select_sources(source_ids), copy, overwrite)


@app.command()
def stellarity(
    path: File,
    copy: Copy,
    values: Annotated[list[str], typer.Argument(metavar="ID=VALUE...", help="More than 0.75 is a point to jwst.")],
    overwrite: Overwrite = False,
) -> None:
    """Say which sources are points, and which extended."""
    from msa3d.observation import metafile_edit

    wanted = {}
    for text in values:
        source_id, _, value = text.partition("=")
        try:
            wanted[int(source_id)] = float(value)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not of the form 8512=1.0") from None
    msa = read(path)
    write_copy(msa, metafile_edit.set_stellarity(msa, wanted), copy, overwrite)


@app.command()
def position(
    path: File,
    copy: Copy,
    source_id: Annotated[int, typer.Argument(help="The source.")],
    x: Annotated[float, typer.Argument(help="Along dispersion, fraction of the shutter's pitch; 0.5 is the middle.")],
    y: Annotated[float, typer.Argument(help="Along the slit, the same.")],
    dither: Annotated[list[int] | None, typer.Option(help="Only at this dither point; may be repeated.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Say where a source is in its shutter."""
    from msa3d.observation import metafile_edit

    msa = read(path)
    write_copy(msa, metafile_edit.set_position(msa, source_id, x, y, dither or ()), copy, overwrite)


@app.command()
def background(
    path: File,
    copy: Copy,
    slitlet: Annotated[int, typer.Argument(help="The slitlet, by its id.")],
    column: Annotated[list[int] | None, typer.Option(help="Only the shutter in this column; may be repeated.")] = None,
    source: Annotated[bool, typer.Option("--source", help="Mark as source instead of background.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Mark shutters, or a whole slitlet, as background."""
    from msa3d.observation import metafile_edit

    msa = read(path)
    write_copy(msa, metafile_edit.set_background(msa, slitlet, column or (), not source), copy, overwrite)


@app.command()
def split(
    path: File,
    copy: Copy,
    longest: Annotated[int, typer.Option(help="Slitlets of more shutters are split.")] = 3,
    own_sources: Annotated[bool, typer.Option("--own-sources", help="Every piece gets a source of its own.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Split long slitlets (NS-MOS03: path loss is known for 1 and 3 shutters)."""
    from msa3d.observation import metafile_edit

    msa = read(path)
    write_copy(msa, metafile_edit.split_slitlets(msa, longest, own_sources), copy, overwrite)


@app.command()
def lengthen(
    path: File,
    copy: Copy,
    shutters: Annotated[int, typer.Option(help="How many more at each end.")] = 1,
    slitlet: Annotated[list[int] | None, typer.Option(help="Only this slitlet; may be repeated.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Pretend one more open shutter at each end (NS-MOS06: fluxes at the ends of slitlets)."""
    from msa3d.observation import metafile_edit

    msa = read(path)
    write_copy(msa, metafile_edit.lengthen_slitlets(msa, shutters, slitlet or ()), copy, overwrite)


@app.command("one-per-shutter")
def one_per_shutter(
    path: File,
    copy: Copy,
    slitlet: Annotated[list[int], typer.Argument(help="Long slits, by slitlet id.")],
    first_id: Annotated[int | None, typer.Option(help="Source id of the first shutter; others count on.")] = None,
    ra: Annotated[float | None, typer.Option(help="Right ascension (deg) for a slit without a source.")] = None,
    dec: Annotated[float | None, typer.Option(help="Its declination (deg).")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a long slit into one slitlet a shutter, each with a source of its own."""
    from msa3d.observation import metafile_edit

    msa = read(path)
    coordinates = (ra, dec) if ra is not None and dec is not None else None
    write_copy(msa, metafile_edit.one_slitlet_per_shutter(msa, slitlet, first_id, coordinates), copy, overwrite)
