"""The leading eigenvectors of one side's second moment, from a sample of gradients that streams by.

A side of up to `EXACT` entries keeps the moment itself. A longer one (50,000 words, 25,088 inputs) keeps its product
with a random thin matrix, from one pass (Nystroem's method; Tropp et al. 2017, algorithm 3): memory is linear in the
side, and a positive semidefinite matrix of nearly low rank is recovered nearly exactly.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.gradients.block import BlockGradient
from indexer.gradients.moments import Side, moment_times
from indexer.projection.random_matrix import normal_matrix

EXACT = 512  # entries; above, eigenvectors of the whole moment cost more than the pass that they are for (measured)
OVERSAMPLED = 2  # columns of the thin matrix for every vector that is wanted


class SideBasis:
    """Takes the gradients of one block and gives an orthonormal basis of one of its sides.

    size: entries of the side; rank: vectors wanted at most; place: of the random matrix, where there is one.
    """

    def __init__(self, side: Side, size: int, rank: int, *, seed: int, place: tuple[int, str, str]) -> None:
        self._side = side
        self._rank = min(rank, size)
        self._matrix: Tensor | None = None
        if size > EXACT and OVERSAMPLED * self._rank < size:
            self._matrix = normal_matrix((size, OVERSAMPLED * self._rank), 1.0, seed=seed, place=place)
        self._total: Tensor | None = None

    def add(self, gradient: BlockGradient, weights: Float[Tensor, " b"]) -> None:
        """Add the weighted moment of a batch."""
        matrix = None if self._matrix is None else self._matrix.to(weights)
        found = moment_times(gradient, self._side, weights, matrix).double()
        self._total = found if self._total is None else self._total + found

    def leading(self) -> tuple[Float[Tensor, "r s"], Float[Tensor, " r"]]:
        """Return eigenvectors as rows, leading first, and their eigenvalues, in float64."""
        assert self._total is not None, "no gradient was added"
        total = self._total.cpu()
        values, vectors = _eigen(total) if self._matrix is None else _nystroem(total, self._matrix.double())
        return vectors[:, : self._rank].T.contiguous(), values[: self._rank].clamp_min(0)


def _eigen(moment: Float[Tensor, "s s"]) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh((moment + moment.T) / 2)
    return values.flip(0), vectors.flip(1)


def _nystroem(product: Float[Tensor, "s k"], matrix: Float[Tensor, "s k"]) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues and eigenvectors of Y (M'Y)^-1 Y', where Y = A M, shifted a little to be invertible."""
    shift = product.norm() * 1e-12 + torch.finfo(product.dtype).tiny
    shifted = product + shift * matrix
    core = matrix.T @ shifted
    values, vectors = torch.linalg.eigh((core + core.T) / 2)
    kept = values > values[-1] * 1e-12
    root = shifted @ (vectors[:, kept] / values[kept].sqrt())  # root root' is the approximation
    vectors, roots, _ = torch.linalg.svd(root, full_matrices=False)  # orthonormal, however small an eigenvalue is
    return roots.square() - shift, vectors
