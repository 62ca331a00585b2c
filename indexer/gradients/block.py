"""The gradient of one parameter block for a batch of examples, behind four primitives.

    sandwich(L, R)   L g_i R'                 [b, r1, r2]
    dense()          g_i                      [b, m, n]
    square_norm()    <g_i, g_i>               [b]
    dot(other)       <g_i, g'_j>              [b, q]

Contributions of several calls (tied weights, a layer called twice) add up before any product, so cross terms
are never lost. Two blocks of gradients can be multiplied when they belong to the same parameter.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.gradients.uses import Lefts, UnitVectors, Use

CHUNK = 2**20  # numbers that a step of a norm or product forms at once: 4 MB of float32 stay in a cache (measured)


@runtime_checkable
class BlockGradient(Protocol):
    """Per-example gradients of one block, however they are held."""

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """Return L g_i R' for every example; None leaves a side alone."""

    def dense(self) -> Float[Tensor, "b m n"]:
        """Return the gradients themselves."""

    def square_norm(self) -> Float[Tensor, " b"]:
        """Return <g_i, g_i> for every example."""

    def dot(self, other: "BlockGradient") -> Float[Tensor, "b q"]:
        """Return <g_i, g'_j> for every example i here and j there."""

    def settled(self) -> "BlockGradient":
        """Return the form in which many products with this gradient cost least."""

    def parts(self) -> Iterator["BlockGradient"]:
        """Yield a few examples at a time, in the form in which several primitives together cost least."""

    def formed(self) -> Iterator["DenseGradient"]:
        """Yield a few examples at a time, formed."""


@dataclass(frozen=True, slots=True)
class DenseGradient:
    """Gradients held as they are, [b, m, n]: what the general paths give."""

    values: Float[Tensor, "b m n"]

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """Two matrix products."""
        product = self.values if left is None else left @ self.values
        return product if right is None else product @ right.T

    def dense(self) -> Float[Tensor, "b m n"]:
        """The values."""
        return self.values

    def square_norm(self) -> Float[Tensor, " b"]:
        """Sum of squares."""
        return self.values.square().sum((1, 2))

    def dot(self, other: BlockGradient) -> Float[Tensor, "b q"]:
        """One matrix product over flattened gradients."""
        return self.values.flatten(1) @ other.dense().flatten(1).T

    def settled(self) -> BlockGradient:
        """Itself."""
        return self

    def parts(self) -> Iterator[BlockGradient]:
        """Itself: it is formed already."""
        yield self

    def formed(self) -> Iterator["DenseGradient"]:
        """Itself."""
        yield self


@dataclass(frozen=True, slots=True)
class FactorGradient:
    """Gradients held as factor pairs of every call that used the block."""

    uses: tuple[Use, ...]

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """The sum of the uses' sandwiches."""
        total = self.uses[0].sandwich(left, right)
        for use in self.uses[1:]:
            total = total + use.sandwich(left, right)
        return total

    def dense(self) -> Float[Tensor, "b m n"]:
        """The sandwich between identities."""
        return self.sandwich(None, None)

    def square_norm(self) -> Float[Tensor, " b"]:
        """<g, g> = sum over t, s of <left_t, left_s> <right_t, right_s>, or densely where that is less work."""
        norm = FactorGradient._dense_norm if self.dense_is_cheaper else FactorGradient._gram_norm
        return torch.cat([norm(self._some(rows)) for rows in self._chunks()])

    def dot(self, other: BlockGradient) -> Float[Tensor, "b q"]:
        """<g, g'> = sum over t, s of <left_t, left'_s> <right_t, right'_s>, or densely where that is less work."""
        if not isinstance(other, FactorGradient) or self.dense_is_cheaper:
            there = other.dense().flatten(1).T
            return torch.cat([self._some(rows).dense().flatten(1) @ there for rows in self._chunks()])
        products = [
            _products(left, right, left_, right_)
            for left, right in (use.pairs() for use in self.uses)
            for left_, right_ in (use.pairs() for use in other.uses)
        ]
        return torch.stack(products).sum(0)

    def settled(self) -> BlockGradient:
        """Return the form in which many products with this gradient cost least: dense, or the factors as they are."""
        return DenseGradient(self.dense()) if self.dense_is_cheaper else self

    def parts(self) -> Iterator[BlockGradient]:
        """Formed where that is less work than factors, and never more of it than fits a cache."""
        for rows in self._chunks():
            yield self._some(rows).settled()

    def in_chunks(self) -> Iterator["FactorGradient"]:
        """Yield as many examples at a time as fit a cache, as factors."""
        for rows in self._chunks():
            yield self._some(rows)

    def formed(self) -> Iterator[DenseGradient]:
        """As many at a time as fit a cache."""
        t, m, n = self._shape
        for rows in _slices(self.batch, m * n + (t * n if t > 1 else 0)):
            yield DenseGradient(self._some(rows).dense())

    @property
    def batch(self) -> int:
        """Examples."""
        return self.uses[0].batch

    @property
    def dense_is_cheaper(self) -> bool:
        """m n < t (m + n): forming the gradient costs less than the products of all pairs of positions."""
        t, m, n = self._shape
        return t > 1 and m * n < t * (m + n)

    @property
    def _shape(self) -> tuple[int, int, int]:
        shapes = [use.shape for use in self.uses]
        return sum(t for t, _, _ in shapes), shapes[0][1], shapes[0][2]

    def _some(self, rows: slice) -> "FactorGradient":
        return FactorGradient(tuple(use.some(rows) for use in self.uses))

    def _chunks(self) -> list[slice]:
        """Return slices of the batch whose gradients, factors and products of positions stay within `CHUNK` numbers."""
        t, m, n = self._shape
        return _slices(self.batch, m * n + t * n if self.dense_is_cheaper else t * t)

    def _dense_norm(self) -> Float[Tensor, " b"]:
        return self.dense().square().sum((1, 2))

    def _gram_norm(self) -> Float[Tensor, " b"]:
        pairs = [use.pairs() for use in self.uses]
        total = torch.zeros((), dtype=pairs[0][1].dtype, device=pairs[0][1].device)
        for i, j in combinations_with_replacement(range(len(pairs)), 2):
            (left, right), (left_, right_) = pairs[i], pairs[j]
            if i == j and not isinstance(left, UnitVectors) and left.shape[1] == 1:
                product = left.square().sum((1, 2)) * right.square().sum((1, 2))
            else:
                product = (gram(left, left_) * (right @ right_.transpose(1, 2))).sum((1, 2))
            total = total + (product if i == j else 2 * product)
        return total


def _slices(b: int, numbers: int) -> list[slice]:
    """Return slices of a batch that stay within `CHUNK` numbers, so many an example."""
    size = max(1, CHUNK // max(numbers, 1))
    return [slice(start, min(start + size, b)) for start in range(0, b, size)]


def gram(left: Lefts, other: Lefts) -> Float[Tensor, "b t s"]:
    """Return <left_t, other_s> for all positions t and s of the same example."""
    if isinstance(left, UnitVectors) and isinstance(other, UnitVectors):
        return (left.ids[:, :, None] == other.ids[:, None, :]).to(torch.get_default_dtype())
    if isinstance(left, UnitVectors):
        assert isinstance(other, Tensor)
        return other.transpose(1, 2).gather(1, left.ids[:, :, None].expand(-1, -1, other.shape[1]))
    if isinstance(other, UnitVectors):
        return gram(other, left).transpose(1, 2)
    return left @ other.transpose(1, 2)


def _products(left: Lefts, right: Tensor, left_: Lefts, right_: Tensor) -> Float[Tensor, "b q"]:
    """Return the sum over t, s of <left_t, left'_s> <right_t, right'_s> for every example here and there."""
    if isinstance(left, Tensor) and isinstance(left_, Tensor) and left.shape[1] == left_.shape[1] == 1:
        return (left[:, 0] @ left_[:, 0].T) * (right[:, 0] @ right_[:, 0].T)
    columns = []
    for j in range(len(right_)):  # one example there at a time: memory b * t * s
        there = UnitVectors(left_.ids[j : j + 1], left_.m) if isinstance(left_, UnitVectors) else left_[j : j + 1]
        columns.append((_across(left, there) * (right @ right_[j].T)).sum((1, 2)))
    return torch.stack(columns, dim=1)


def _across(left: Lefts, other: Lefts) -> Float[Tensor, "b t s"]:
    """Return <left_t, other_s> for all positions of every example here and of the one example there."""
    b = len(left.ids if isinstance(left, UnitVectors) else left)
    if isinstance(other, UnitVectors):
        other = UnitVectors(other.ids.expand(b, -1), other.m)
    elif isinstance(left, Tensor):
        return left @ other[0].T
    else:
        other = other.expand(b, -1, -1)
    return gram(left, other)


@dataclass(frozen=True, slots=True)
class ScaledGradient:
    """Another gradient times a matrix, entry by entry: a diagonal preconditioner. Formed block by block when used."""

    gradient: BlockGradient
    scale: Float[Tensor, "m n"]

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """Two products of the scaled gradient."""
        return DenseGradient(self.dense()).sandwich(left, right)

    def dense(self) -> Float[Tensor, "b m n"]:
        """The gradient times the scale."""
        return self.gradient.dense() * self.scale

    def square_norm(self) -> Float[Tensor, " b"]:
        """Sum of squares."""
        return torch.cat([part.square_norm() for part in self.formed()])

    def dot(self, other: BlockGradient) -> Float[Tensor, "b q"]:
        """One matrix product over flattened gradients."""
        there = other.settled() if isinstance(other, ScaledGradient) else other
        return torch.cat([part.dot(there) for part in self.formed()])

    def settled(self) -> BlockGradient:
        """Formed once."""
        return DenseGradient(self.dense())

    def parts(self) -> Iterator[BlockGradient]:
        """Formed, a few examples at a time."""
        yield from self.formed()

    def formed(self) -> Iterator[DenseGradient]:
        """The formed gradient, scaled."""
        for part in self.gradient.formed():
            yield DenseGradient(part.values * self.scale)
