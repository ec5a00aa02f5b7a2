"""Figure: the cube of one galaxy collapsed along the wavelengths."""

from __future__ import annotations

from matplotlib.figure import Figure

from msa3d.constants import LINES
from msa3d.cube import Cube, cube_path, open_cube
from msa3d.dataset import Dataset
from msa3d.figures import style
from msa3d.figures.sky import draw_map, label_sky, map_bar, map_height
from msa3d.figures.slit_stepping import target_of
from msa3d.layout import Layout
from msa3d.science.spectra import collapsed_image


@style.house_style()
def plot(layout: Layout, dataset: Dataset, source_id: int | None = None, *, truth: Cube | None = None) -> Figure:
    """Draw the mean over all wavelengths and the mean over Ha less the continuum beside it.

    Parameters
    ----------
    layout : Layout
        Where the products are.
    dataset : Dataset
        The observation.
    source_id : int, optional
        The source; the case study without it.
    truth : Cube, optional
        A noiseless cube on the same spaxels, shown beside the result.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels: result, and truth when there is one (else the neighbourhood of Ha).

    Raises
    ------
    ProductError
        If there is no cube.
    """
    target = target_of(dataset, source_id)
    cube = open_cube(cube_path(layout, dataset, target.source_id))
    image = collapsed_image(cube)
    if truth is not None:
        second, title = collapsed_image(truth), "b  truth"
    else:
        line = LINES["Ha"] * (1 + target.redshift)
        second = collapsed_image(cube, (line * 0.999, line * 1.001), clip_sigma=1e9)
        title = "b  within 300 km/s of H\u03b1"
    centre = (target.ra, target.dec)
    height = map_height(cube, centre, 2.4, least=2.2, most=3.6)
    figure = style.new_figure(style.FULL_WIDTH, height + 0.9, "compressed")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    low, high = style.percentile_limits(image, 2.0, 99.7)
    for index, (panel, values) in enumerate(zip(axes, (image, second), strict=True)):
        limits = (low, high) if index == 0 else style.percentile_limits(values, 2.0, 99.7)
        mesh = draw_map(
            panel, cube, values, centre, cmap=style.colour_map(style.FLUX_MAP),
            vmin=limits[0], vmax=limits[1],
        )  # fmt: skip
        label_sky(panel, north=index == 0)
        map_bar(figure, mesh, panel, "surface brightness (MJy/sr)")
    name = target.name or str(target.source_id)
    figure.suptitle(style.literal(name), fontsize=9)
    axes[0].set_title("a  all wavelengths")
    axes[1].set_title(title)
    alt = (
        f"Map of {name}: the cube averaged over {cube.wave_um[0]:.2f} to {cube.wave_um[-1]:.2f} micrometre, "
        f"up to {high:.2g} MJy/sr; beside it {title[3:]}."
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)
