"""The least-squares problem of a disc in a cube: data, weights, and a model whose linear part is solved for."""

from __future__ import annotations

import numpy as np

from msa3d.cube import Cube
from msa3d.science.disc import Disc
from msa3d.science.discmodel import LineModel
from msa3d.science.linefit import _root

LIMITS = {
    "pa_deg": (-720.0, 720.0),
    "v_sin_i": (0.0, 600.0),
    "log_r_turn": (np.log(0.01), np.log(1.5)),
    "sigma0": (0.5, 250.0),
    "systemic": (-300.0, 300.0),
    "x0": (-0.4, 0.4),
    "y0": (-0.4, 0.4),
}
_STEP = {"pa_deg": 1.0, "v_sin_i": 1.0, "log_r_turn": 0.05, "sigma0": 1.0, "systemic": 1.0, "x0": 0.01, "y0": 0.01}


class Problem:
    """Data, weights and model of a fit; parameters are a vector with log(r_turn) in the third place."""

    def __init__(self, cube: Cube, model: LineModel, index: np.ndarray, used: np.ndarray, settings: dict):
        self.model, self.used, self.index = model, used, index
        self.names = tuple(settings["names"])
        self.inclination, self.curve = settings["inclination_deg"], settings["curve"]
        self.light = settings["light"]
        values = cube.data[index][:, used].T
        error = cube.err[index][:, used].T
        known = np.isfinite(values) & np.isfinite(error) & (error > 0)
        self.weight = np.where(known, 1.0 / np.where(known, error, 1.0), 0.0)
        self.values = np.where(known, values, 0.0)
        root = _root(cube.spectral_correlation, index.size)
        self.whiten = np.eye(index.size) if root is None else np.linalg.inv(root)
        ramp = np.stack([np.ones(index.size), np.linspace(-0.5, 0.5, index.size)], axis=1)
        # Per spaxel: whitening, weights, and the projection that takes the straight continuum out.
        operator = self.whiten[None] * self.weight[:, None, :]
        basis = np.linalg.qr(operator @ ramp)[0]
        self.operator = operator - basis @ (basis.transpose(0, 2, 1) @ operator)
        self.target = np.einsum("sij,sj->si", self.operator, self.values)
        self.freedom = float(known.sum() - 3 * known.shape[0] - len(self.names))

    def disc(self, vector: np.ndarray) -> Disc:
        """Disc of a vector of parameters."""
        centre = dict(zip(self.names[5:], vector[5:], strict=True))
        return Disc(vector[0], self.inclination, vector[1], np.exp(vector[2]), vector[4], curve=self.curve, **centre)

    def shapes(self, vector: np.ndarray) -> np.ndarray:
        """Model spectra of the spaxels used, (n, n_wave)."""
        velocity = self.disc(vector).velocity(self.model.east, self.model.north)
        return self.model.predict(self.light, velocity, vector[3])[:, self.used].T

    def amplitudes(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whitened model spectra, and how bright each must be."""
        seen = np.einsum("sij,sj->si", self.operator, self.shapes(vector))
        bright = (seen * self.target).sum(axis=1) / np.maximum((seen**2).sum(axis=1), 1e-300)
        return seen, np.maximum(bright, 0.0)

    def residuals(self, vector: np.ndarray) -> np.ndarray:
        """Whitened residuals, flat."""
        seen, bright = self.amplitudes(vector)
        return (self.target - bright[:, None] * seen).ravel()

    def jacobian(self, vector: np.ndarray) -> np.ndarray:
        """Derivatives of the residuals, (n_residuals, n_parameters)."""
        columns = []
        for k, name in enumerate(self.names):
            step = np.zeros(vector.size)
            step[k] = _STEP["log_r_turn" if name == "r_turn" else name]
            columns.append((self.residuals(vector + step) - self.residuals(vector - step)) / (2.0 * step[k]))
        return np.stack(columns, axis=1)
