"""The slit-stepping pattern: which exposure lies where."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from msa3d._model import Model, Positive


class Pattern(Model):
    """The slit-stepping pattern.

    Parameters
    ----------
    rows : int
        Dithers along the slit (cross-dispersion), at most 100.
    columns : int
        Steps across the slit (dispersion): the columns of the cube; at most 100.
    row_step_arcsec, column_step_arcsec : float
        Nominal steps, arcsec on the sky. 0.075 is published; 0.2 (the open width of a shutter) is this
        project's default, since the sources read do not give it.
    order : {"serpentine", "raster"}
        How exposure index becomes a place: serpentine turns round at the end of every row.
    """

    rows: int = Field(7, ge=1, le=100)
    columns: int = Field(9, ge=1, le=100)
    row_step_arcsec: Positive = 0.075
    column_step_arcsec: Positive = 0.2
    order: Literal["serpentine", "raster"] = "serpentine"

    @property
    def n_exposures(self) -> int:
        """Exposures of the whole pattern."""
        return self.rows * self.columns

    def place(self, index: int) -> tuple[int, int]:
        """Row and column of an exposure.

        Parameters
        ----------
        index : int
            Place in observing order, from 0.

        Returns
        -------
        tuple of int
            ``(row, column)``, both from 0: exposure ``j * columns + i`` belongs to row j and, in serpentine
            order, to column i for even j and to column ``columns - 1 - i`` for odd j.
        """
        if not 0 <= index < self.n_exposures:
            raise IndexError(f"exposure {index} is outside a pattern of {self.n_exposures}")
        row, column = divmod(index, self.columns)
        if self.order == "serpentine" and row % 2:
            column = self.columns - 1 - column
        return row, column

    def index(self, row: int, column: int) -> int:
        """Place in observing order of the exposure at a row and a column: the inverse of `place`."""
        if self.order == "serpentine" and row % 2:
            column = self.columns - 1 - column
        return row * self.columns + column
