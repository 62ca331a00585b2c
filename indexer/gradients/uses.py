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
from math import prod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


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
        """Two thin products, then one outer product a position."""
        a = self.delta if left is None else self.delta @ left.T
        b = _with_one(self.x, self.bias) if right is None else _affine(self.x, right, self.bias)
        if a.ndim == 2:
            return a[:, :, None] * b[:, None, :]
        return _positions(a).transpose(1, 2) @ _positions(b)

    def pairs(self) -> tuple[Float[Tensor, "b t m"], Float[Tensor, "b t n"]]:
        """delta and x, positions flattened to one axis."""
        return _positions(self.delta), _positions(_with_one(self.x, self.bias))

    def some(self, rows: slice) -> "LinearUse":
        """Rows of both."""
        return LinearUse(self.delta[rows], self.x[rows], self.bias)


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a convolution moves over its input; one entry of each tuple a spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True, slots=True)
class ConvolutionUse:
    """y = conv(x, W) + b in 1 to 3 dimensions: a position is an output pixel, right the patch that it sees.

    delta [b, m, *pixels], x [b, c, *size]; the weight is [m, c / groups, *kernel], so n = c / groups * kernel (+ 1). R
    applied to all patches is itself a convolution with the rows of R as kernels, so that no patch is ever stored.
    With groups a position is a pixel of one group: left is delta there and zero outside the group's outputs.
    """

    delta: Tensor
    x: Tensor
    bias: bool
    geometry: Geometry

    @property
    def batch(self) -> int:
        """Examples."""
        return len(self.delta)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Positions are the output's pixels, once a group."""
        g = self.geometry
        inputs = self.x.shape[1] // g.groups * prod(g.kernel)
        return g.groups * self.delta.shape[2:].numel(), self.delta.shape[1], inputs + self.bias

    def sandwich(self, left: Tensor | None, right: Tensor | None) -> Float[Tensor, "b r1 r2"]:
        """One product for the left, one convolution for the right, and a sum over pixels.

        Grouped blocks are short (n is divided by the groups): they are formed, then multiplied.
        """
        if right is not None and self.geometry.groups == 1:
            a = self.delta.flatten(2)
            a = a if left is None else left @ a
            return a @ self._convolved(right).transpose(1, 2)
        product = self._dense()
        product = product if left is None else left @ product
        return product if right is None else product @ right.T

    def pairs(self) -> tuple[Float[Tensor, "b t m"], Float[Tensor, "b t n"]]:
        """delta, spread over its group's outputs, and the patches."""
        groups = self.geometry.groups
        own = torch.eye(groups, dtype=self.delta.dtype, device=self.delta.device)
        left = torch.einsum("bgto,gh->bgtho", self._deltas(), own).flatten(3).flatten(1, 2)
        right = self._patches().transpose(3, 4).flatten(3).flatten(1, 2)
        return left, _with_one(right, self.bias)

    def some(self, rows: slice) -> "ConvolutionUse":
        """Rows of both."""
        return ConvolutionUse(self.delta[rows], self.x[rows], self.bias, self.geometry)

    def _dense(self) -> Float[Tensor, "b m n"]:
        patches = self._patches()
        product = self._deltas().transpose(2, 3) @ patches.flatten(3)  # [b, g, m / g, k c / g]
        product = product.reshape(*product.shape[:3], *patches.shape[3:]).transpose(3, 4)
        product = product.reshape(len(self.delta), self.delta.shape[1], -1)
        if not self.bias:
            return product
        return torch.cat([product, self.delta.flatten(2).sum(2, keepdim=True)], dim=2)

    def _deltas(self) -> Float[Tensor, "b g t o"]:
        """delta by group, pixels before channels."""
        b, m, groups = len(self.delta), self.delta.shape[1], self.geometry.groups
        return self.delta.flatten(2).transpose(1, 2).reshape(b, -1, groups, m // groups).transpose(1, 2)

    def _patches(self) -> Float[Tensor, "b g t k c"]:
        """The patch of every group and pixel, kernel positions before channels.

        Channels are innermost while patches are cut, so that a row of a patch is one run of memory.
        """
        g, axes = self.geometry, len(self.geometry.kernel)
        x = self.x.movedim(1, -1)
        if any(g.padding):
            x = F.pad(x, (0, 0, *(side for pad in reversed(g.padding) for side in (pad, pad))))
        for axis in range(axes):  # [b, *size, c] -> [b, *pixels, c, *kernel]
            x = x.unfold(1 + axis, g.dilation[axis] * (g.kernel[axis] - 1) + 1, g.stride[axis])[
                ..., :: g.dilation[axis]
            ]
        x = x.movedim(1 + axes, -1)
        patches = x.reshape(len(x), self.delta.shape[2:].numel(), prod(g.kernel), g.groups, -1)
        return patches.permute(0, 3, 1, 2, 4)

    def _convolved(self, right: Tensor) -> Float[Tensor, "b r2 t"]:
        g = self.geometry
        convolve = (F.conv1d, F.conv2d, F.conv3d)[len(g.kernel) - 1]
        columns = right[:, :-1] if self.bias else right
        kernels = columns.reshape(len(right), self.x.shape[1], *g.kernel)
        offset = right[:, -1] if self.bias else None
        return convolve(self.x, kernels, offset, g.stride, g.padding, g.dilation).flatten(2)


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


def _with_one(x: Tensor, bias: bool) -> Tensor:
    return torch.cat([x, x.new_ones((*x.shape[:-1], 1))], dim=-1) if bias else x


def _affine(x: Tensor, right: Tensor, bias: bool) -> Tensor:
    return x @ right[:, :-1].T + right[:, -1] if bias else x @ right.T
