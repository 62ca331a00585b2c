"""Rules: how one call of a function contributes to the gradient of its parameters.

A rule turns what capture saw (the input x and delta, the gradient at the output) into a ``Use`` of a block.
A use gives two things and nothing else: its sandwich, and its factor pairs.

    sandwich(L, R) = sum over t of (L left_t)(R right_t)'          [b, r1, r2]
    pairs()        = left [b, t, m], right [b, t, n]

``None`` for L or R stands for the identity: that side is left alone. The bias is one more input fixed to 1, once
an output position: its column of R is added after the product, never padded into the image.
A bias without its weight is a block of shape [m, 1]: the input has no columns but that one.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@runtime_checkable
class Use(Protocol):
    """One call's contribution to the gradient of one block."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(t, m, n): positions, and the block's own shape."""

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """Return the sum over positions of (L left_t)(R right_t)'."""

    def pairs(self) -> tuple[Float[Tensor, "b t m"], Float[Tensor, "b t n"]]:
        """Return the factors themselves."""


@dataclass(frozen=True, slots=True)
class LinearUse:
    """y = W x + b: left is delta, right is x (with a 1 appended where the block has the bias).

    delta [b, ..., m] and x [b, ..., n] have the same leading dimensions; those after the batch are positions.
    """

    delta: Tensor
    x: Tensor
    bias: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Positions are all axes between the first and the last."""
        return self.delta.shape[1:-1].numel(), self.delta.shape[-1], self.x.shape[-1] + self.bias

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """Two thin products, then one outer product a position."""
        a = self.delta if left is None else self.delta @ left.T
        b = _with_one(self.x, self.bias) if right is None else _affine(self.x, right, self.bias)
        if a.ndim == 2:
            return a[:, :, None] * b[:, None, :]
        return _positions(a).transpose(1, 2) @ _positions(b)

    def pairs(self) -> tuple[Float[Tensor, "b t m"], Float[Tensor, "b t n"]]:
        """delta and x, positions flattened to one axis."""
        return _positions(self.delta), _positions(_with_one(self.x, self.bias))


@dataclass(frozen=True, slots=True)
class Convolution:
    """The geometry of a two-dimensional convolution without groups."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Conv2dUse:
    """y = conv(x, W) + b: a position is an output pixel, left is delta there, right the patch that it sees.

    delta [b, m, h', w'], x [b, c, h, w]; n = c * kh * kw (+ 1). R applied to all patches is itself a convolution
    with the rows of R as kernels, so that no patch is ever stored.
    """

    delta: Tensor
    x: Tensor
    bias: bool
    geometry: Convolution

    @property
    def shape(self) -> tuple[int, int, int]:
        """Positions are the output's pixels."""
        height, width = self.geometry.kernel
        inputs = self.x.shape[1] * height * width
        return self.delta.shape[2:].numel(), self.delta.shape[1], inputs + self.bias

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """One product for the left, one convolution for the right, and a sum over pixels."""
        a = self.delta.flatten(2)
        if left is not None:
            a = left @ a
        if right is not None:
            return a @ self._convolved(right).transpose(1, 2)
        product = a @ self._patches().transpose(1, 2)
        return torch.cat([product, a.sum(2, keepdim=True)], dim=2) if self.bias else product

    def pairs(self) -> tuple[Float[Tensor, "b t m"], Float[Tensor, "b t n"]]:
        """delta and the unfolded patches."""
        return self.delta.flatten(2).transpose(1, 2), _with_one(self._patches().transpose(1, 2), self.bias)

    def _patches(self) -> Float[Tensor, "b n t"]:
        g = self.geometry
        return F.unfold(self.x, g.kernel, g.dilation, g.padding, g.stride)

    def _convolved(self, right: Tensor) -> Float[Tensor, "b r2 t"]:
        g = self.geometry
        columns = right[:, :-1] if self.bias else right
        kernels = columns.reshape(len(right), self.x.shape[1], *g.kernel)
        offset = right[:, -1] if self.bias else None
        return F.conv2d(self.x, kernels, offset, g.stride, g.padding, g.dilation).flatten(2)


def _positions(x: Tensor) -> Float[Tensor, "b t n"]:
    return x.flatten(1, -2) if x.ndim > 2 else x[:, None, :]


def _with_one(x: Tensor, bias: bool) -> Tensor:
    return torch.cat([x, x.new_ones((*x.shape[:-1], 1))], dim=-1) if bias else x


def _affine(x: Tensor, right: Tensor, bias: bool) -> Tensor:
    return x @ right[:, :-1].T + right[:, -1] if bias else x @ right.T
