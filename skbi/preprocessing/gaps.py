"""Missing entries: filled with what an emulator expects at the theta that the others suggest.

    w_hat = argmin sum over present j of (x_j - f_j(w))^2 / psi_j + the prior,    x_j = f_j(w_hat)
    for missing j,

so that an entry which is missing costs what it says on theta, and not what the others say, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skbi.preprocessing.emulator import MIN_NOISE, Emulator, choose_length_scales
from skbi.preprocessing.location import Location

__all__ = ["Gaps"]

_N_FILLS = 3  # times that an emulator is fitted to what the one before has filled


@dataclass(frozen=True)
class Gaps:
    """What fills gaps, fitted.

    Attributes
    ----------
    location : Location
        By an emulator of all features, whose noise is independent.
    """

    location: Location

    @classmethod
    def fit(
        cls,
        w: NDArray[np.float64],
        x: NDArray[np.float64],
        present: NDArray[np.bool_],
        prior_precision: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> Self:
        """Learn from training pairs: w (n, p), x (n, d), and which entries of x are present."""
        filled, seed = np.where(present, x, 0), int(rng.integers(2**63))
        for _ in range(_N_FILLS):
            length_scales = choose_length_scales(w, filled, np.random.default_rng(seed))
            emulator, errors = Emulator.fit(w, filled, length_scales, np.random.default_rng(seed))
            filled = np.where(present, x, emulator(w))
        squares = np.where(present, errors, 0) ** 2
        noise = squares.sum(axis=0) / np.maximum(present.sum(axis=0), 1)
        covariance = np.diag(np.maximum(noise, MIN_NOISE**2))
        return cls(Location.of_emulator(w, emulator, covariance, prior_precision))

    def fill(
        self, x: NDArray[np.float64], present: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], ...]]:
        """Return x (n, d) without gaps, and what `Location.find` found."""
        found = self.location.find(x, present)
        return np.where(present, x, self.location.expected(found[0])), found
