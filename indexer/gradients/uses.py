"""Uses: what one call of a function contributes to the gradient of one parameter block.

A use holds what capture saw (the input x and delta, the gradient at the output) and gives two things and nothing
else: its sandwich, and its factor pairs.

    sandwich(L, R) = sum over t of (L left_t)(R right_t)'          [b, r1, r2]
    pairs()        = left [b, t, m], right [b, t, n]

``None`` for L or R stands for the identity: that side is left alone. The bias is one more input fixed to 1, once
an output position: its column of R is added after the product, never padded into the image.
A bias without its weight is a block of shape [m, 1]: the input has no columns but that one.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

LANES = 16  # rows of a thin matrix that a product takes together
WORTH_FILLING = 2**14  # numbers on the other side from which filling up costs less than it saves


@dataclass(frozen=True, slots=True)
class UnitVectors:
    """Left factors that are rows of the identity: ids [b, t] of m possible ones. Never formed unless somebody asks."""

    ids: Int[Tensor, "b t"]
    m: int

    def dense(self, dtype: torch.dtype) -> Float[Tensor, "b t m"]:
        """The vectors themselves."""
        return F.one_hot(self.ids, self.m).to(dtype)


Lefts = Tensor | UnitVectors


@runtime_checkable
class Use(Protocol):
    """One call's contribution to the gradient of one block."""

    @property
    def batch(self) -> int:
        """Examples."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(t, m, n): positions, and the block's own shape."""

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """Return the sum over positions of (L left_t)(R right_t)'."""

    def pairs(self) -> tuple[Lefts, Float[Tensor, "b t n"]]:
        """Return the factors themselves: left [b, t, m], or which unit vectors they are."""

    def some(self, rows: slice) -> "Use":
        """Return the same of some of the examples."""


@dataclass(frozen=True, slots=True)
class LinearUse:
    """y = W x + b: left is delta, right is x (with a 1 appended where the block has the bias).

    delta [b, ..., m] and x [b, ..., n] have the same leading dimensions; those after the batch are positions.
    """

    delta: Tensor
    x: Tensor
    bias: bool

    @property
    def batch(self) -> int:
        """Examples."""
        return len(self.delta)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Positions are all axes between the first and the last."""
        return self.delta.shape[1:-1].numel(), self.delta.shape[-1], self.x.shape[-1] + self.bias

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """Two thin products, then one outer product a position; a bias alone is summed before anything else."""
        if self.bias and self.x.shape[-1] == 0:
            total = _positions(self.delta).sum(1)
            total = (total if left is None else total @ left.T)[:, :, None]
            return total if right is None else total * right[:, 0]
        a = self.delta if left is None else thin_product(self.delta, left)
        b = with_one(self.x, self.bias) if right is None else _affine(self.x, right, self.bias)
        if a.ndim == 2:
            return a[:, :, None] * b[:, None, :]
        return _positions(a).transpose(1, 2) @ _positions(b)

    def pairs(self) -> tuple[Float[Tensor, "b t m"], Float[Tensor, "b t n"]]:
        """delta and x, positions flattened to one axis."""
        return _positions(self.delta), _positions(with_one(self.x, self.bias))

    def some(self, rows: slice) -> "LinearUse":
        """Rows of both."""
        return LinearUse(self.delta[rows], self.x[rows], self.bias)


@dataclass(frozen=True, slots=True)
class EmbeddingUse:
    """y = W[token]: left is the unit vector of the token, right is delta; tokens [b, ...], delta [b, ..., n].

    m is the number of rows of W.
    """

    tokens: Tensor
    delta: Tensor
    rows: int

    @property
    def batch(self) -> int:
        """Examples."""
        return len(self.tokens)

    @property
    def shape(self) -> tuple[int, int, int]:
        """A position is a token."""
        return self.tokens.shape[1:].numel(), self.rows, self.delta.shape[-1]

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """The columns of L that the tokens choose; without L, a sum of deltas into the tokens' rows."""
        tokens, deltas = self._chosen, _positions(self.delta)
        b = deltas if right is None else deltas @ right.T
        if left is not None:
            return left.T[tokens].transpose(1, 2) @ b
        rows = b.new_zeros(len(b), self.rows, b.shape[2])
        return rows.scatter_add(1, tokens[:, :, None].expand_as(b), b)

    def pairs(self) -> tuple[UnitVectors, Float[Tensor, "b t n"]]:
        """Unit vectors and deltas."""
        return UnitVectors(self._chosen, self.rows), _positions(self.delta)

    def some(self, rows: slice) -> "EmbeddingUse":
        """Rows of both."""
        return EmbeddingUse(self.tokens[rows], self.delta[rows], self.rows)

    @property
    def _chosen(self) -> Int[Tensor, "b t"]:
        return self.tokens.reshape(len(self.tokens), -1)


@dataclass(frozen=True, slots=True)
class DenseUse:
    """A gradient that is no product of factors, held as it is: values [b, m, n]; a position is a row."""

    values: Tensor

    @property
    def batch(self) -> int:
        """Examples."""
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int, int]:
        """As many positions as rows."""
        return self.values.shape[1], self.values.shape[1], self.values.shape[2]

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """Two products."""
        product = self.values if left is None else left @ self.values
        return product if right is None else product @ right.T

    def pairs(self) -> tuple[Float[Tensor, "b t m"], Float[Tensor, "b t n"]]:
        """Unit vectors and rows."""
        unit = torch.eye(self.values.shape[1], dtype=self.values.dtype, device=self.values.device)
        return unit.expand(len(self.values), -1, -1), self.values

    def some(self, rows: slice) -> "DenseUse":
        """Rows of the values."""
        return DenseUse(self.values[rows])


def _positions(x: Tensor) -> Float[Tensor, "b t n"]:
    return x.flatten(1, -2) if x.ndim > 2 else x[:, None, :]


def thin_product(x: Tensor, matrix: Float[Tensor, "r n"]) -> Tensor:
    """Return x matrix' [..., r] for a matrix of few rows.

    Between 6 and 15 rows, and from 9 to 15 past a multiple of 16, a product takes up to 2.7 times as long as with the
    rows that fill it up to 16 (measured): these are zeros.
    """
    r = len(matrix)
    if x.numel() < WORTH_FILLING or r % LANES < (6 if r < LANES else 9):
        return x @ matrix.T
    return (x @ F.pad(matrix, (0, 0, 0, LANES - r % LANES)).T)[..., :r]


def with_one(x: Tensor, bias: bool) -> Tensor:
    """Return inputs with a last one of 1, where a bias is held as a column."""
    return torch.cat([x, x.new_ones((*x.shape[:-1], 1))], dim=-1) if bias else x


def _affine(x: Tensor, right: Tensor, bias: bool) -> Tensor:
    return thin_product(x, right[:, :-1]) + right[:, -1] if bias else thin_product(x, right)
