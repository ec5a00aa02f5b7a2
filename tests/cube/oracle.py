"""The published cube once more, written down from its description alone, slowly and literally."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from scipy.interpolate import RegularGridInterpolator
from stdatamodels.jwst import datamodels


@dataclass
class Exposure:
    """What the published code takes from a file: data as FITS has them, and the world of all pixels."""

    data: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    wave: np.ndarray

    @classmethod
    def of(cls, data, wcs):
        y, x = np.mgrid[: data.shape[0], : data.shape[1]]
        return cls(data, *(np.array(value) for value in wcs.get_transform("detector", "world")(x, y)))

    @classmethod
    def read(cls, path):
        with datamodels.open(path) as model:
            return cls.of(fits.getdata(path, 1), model.meta.wcs)

    @property
    def first_row(self):
        return self.wave[0]

    @property
    def native_pixel(self):
        a = SkyCoord(self.ra[-2, 0] * u.deg, self.dec[-2, 0] * u.deg, frame="icrs")
        b = SkyCoord(self.ra[-1, 0] * u.deg, self.dec[-1, 0] * u.deg, frame="icrs")
        return round(a.separation(b).arcsecond, 5)


def groups_of(exposures, rows, columns):
    """Exposure j*columns+i: row j, column i for even j, column columns-1-i for odd j."""
    group = [[None] * rows for _ in range(columns)]
    for j in range(rows):
        for i in range(columns):
            group[i if j % 2 == 0 else columns - 1 - i][j] = exposures[j * columns + i]
    return group


def published_cube(exposures, rows, columns, step=0.075):
    """Stacks, medians, cube and wavelengths of all exposures of a source, given in observing order."""
    group = groups_of(exposures, rows, columns)
    sub = group[int(np.ceil(columns / 2)) - 1][int(np.ceil(rows / 2)) - 1].native_pixel / 4
    waves = [exposure.first_row for exposure in exposures]
    grid = np.arange(min(w[0] for w in waves), max(w[-1] for w in waves), min(np.diff(w).min() for w in waves))
    ny_first = exposures[0].data.shape[0]
    along = np.linspace(0, ny_first - 1, (ny_first - 1) * 4 + 1)
    points = np.meshgrid(along, grid, indexing="ij")
    stacks, medians = [], []
    for column in group:
        stack = np.zeros((rows, int((column[0].data.shape[0] + 4.5) * 4), grid.size))
        for k, exposure in enumerate(column):
            at = RegularGridInterpolator(
                (np.arange(exposure.data.shape[0], dtype=float), exposure.first_row),
                exposure.data,
                bounds_error=False,
                fill_value=np.nan,
            )
            first = int(k * step / sub)
            stack[k, first : first + along.size] = at(tuple(points))
        stacks.append(stack)
        medians.append(np.median(stack, axis=0))
    return stacks, medians, np.stack([median.T for median in medians], axis=-1), grid
