"""The gradient of one parameter block for a batch of examples, behind four primitives.

    sandwich(L, R)   L g_i R'                 [b, r1, r2]
    dense()          g_i                      [b, m, n]
    square_norm()    <g_i, g_i>               [b]
    dot(other)       <g_i, g'_j>              [b, q]

Contributions of several calls (tied weights, a layer called twice) add up before any product, so cross terms
are never lost. Two blocks of gradients can be multiplied when they belong to the same parameter.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.gradients.uses import Use


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
        if self._dense_is_cheaper:
            return self.dense().square().sum((1, 2))
        left, right = self._pairs()
        if left.shape[1] == 1:
            return left.square().sum((1, 2)) * right.square().sum((1, 2))
        return ((left @ left.transpose(1, 2)) * (right @ right.transpose(1, 2))).sum((1, 2))

    def dot(self, other: BlockGradient) -> Float[Tensor, "b q"]:
        """<g, g'> = sum over t, s of <left_t, left'_s> <right_t, right'_s>, or densely where that is less work."""
        if not isinstance(other, FactorGradient) or self._dense_is_cheaper:
            return self.dense().flatten(1) @ other.dense().flatten(1).T
        (left, right), (left_, right_) = self._pairs(), other._pairs()
        if left.shape[1] == left_.shape[1] == 1:
            return (left[:, 0] @ left_[:, 0].T) * (right[:, 0] @ right_[:, 0].T)
        columns = [
            ((left @ left_[j].T) * (right @ right_[j].T)).sum((1, 2)) for j in range(len(left_))
        ]  # one example there at a time: memory b * t * s
        return torch.stack(columns, dim=1)

    def settled(self) -> BlockGradient:
        """Return the form in which many products with this gradient cost least: dense, or the factors as they are."""
        return DenseGradient(self.dense()) if self._dense_is_cheaper else self

    @property
    def _dense_is_cheaper(self) -> bool:
        """m n < t (m + n): forming the gradient costs less than the products of all pairs of positions."""
        shapes = [use.shape for use in self.uses]
        t, m, n = sum(t for t, _, _ in shapes), shapes[0][1], shapes[0][2]
        return t > 1 and m * n < t * (m + n)

    def _pairs(self) -> tuple[Float[Tensor, "b t m"], Float[Tensor, "b t n"]]:
        pairs = [use.pairs() for use in self.uses]
        return torch.cat([left for left, _ in pairs], dim=1), torch.cat([right for _, right in pairs], dim=1)
