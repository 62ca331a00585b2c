"""The use of a convolution: its sandwich by a convolution with random kernels, its gradient from patches.

A position is an output pixel, right the patch that it sees. R applied to all patches is itself a convolution with the
rows of R as kernels, so that no patch is ever stored. (Forming the gradient first is fewer products where kernels see
few inputs, and was slower all the same within a pass.)
"""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from indexer.gradients.uses import with_one

PATCHES = 2**20  # numbers in patches that are stored at once: 4 MB of float32


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
    """y = conv(x, W) + b in 1 to 3 dimensions.

    delta [b, m, *pixels], x [b, c, *size]; the weight is [m, c / groups, *kernel], so n = c / groups * kernel (+ 1).
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
        products = []
        for start in range(0, self.batch, self._at_once):
            product = self.some(slice(start, start + self._at_once))._dense()
            product = product if left is None else left @ product
            products.append(product if right is None else product @ right.T)
        return products[0] if len(products) == 1 else torch.cat(products)

    def pairs(self) -> tuple[Float[Tensor, "b t m"], Float[Tensor, "b t n"]]:
        """delta, spread over its group's outputs, and the patches."""
        groups = self.geometry.groups
        own = torch.eye(groups, dtype=self.delta.dtype, device=self.delta.device)
        left = torch.einsum("bgto,gh->bgtho", self._deltas(), own).flatten(3).flatten(1, 2)
        right = self._columns().transpose(2, 3).flatten(1, 2)
        return left, with_one(right, self.bias)

    def some(self, rows: slice) -> "ConvolutionUse":
        """Rows of both."""
        return ConvolutionUse(self.delta[rows], self.x[rows], self.bias, self.geometry)

    @property
    def _at_once(self) -> int:
        """Examples whose patches fit a cache."""
        t, _, n = self.shape
        return max(1, PATCHES // (t * n))

    def _dense(self) -> Float[Tensor, "b m n"]:
        """Sum over pixels of delta and patch: patches lie in memory so that their copy runs along something long."""
        g = self.geometry
        b, m, inputs = len(self.delta), self.delta.shape[1], self.x.shape[1] // g.groups
        if inputs * g.kernel[-1] < self.delta.shape[-1]:
            product = (self._columns() @ self._deltas()).transpose(2, 3)  # [b, g, o, c k]
        else:
            product = self._deltas().transpose(2, 3) @ self._patches()  # [b, g, o, k c]
            product = product.reshape(b, g.groups, m // g.groups, -1, inputs).transpose(3, 4)
        product = product.reshape(b, m, -1)
        if not self.bias:
            return product
        return torch.cat([product, self.delta.flatten(2).sum(2, keepdim=True)], dim=2)

    def _deltas(self) -> Float[Tensor, "b g t o"]:
        """delta by group, pixels before channels."""
        b, m, groups = len(self.delta), self.delta.shape[1], self.geometry.groups
        return self.delta.flatten(2).transpose(1, 2).reshape(b, -1, groups, m // groups).transpose(1, 2)

    def _columns(self) -> Float[Tensor, "b g n t"]:
        """What each weight of a kernel sees, pixels innermost: a run of memory is a row of the image."""
        g, axes = self.geometry, len(self.geometry.kernel)
        x = F.pad(self.x, self._sides) if any(g.padding) else self.x
        x = self._unfolded(x, first=2)  # [b, c, *pixels, *kernel]
        x = x.permute(0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))
        return x.reshape(len(x), g.groups, -1, self.delta.shape[2:].numel())

    def _patches(self) -> Float[Tensor, "b g t n"]:
        """What each pixel sees, kernel before channels, channels innermost: a run of memory is a row of a patch."""
        g, axes = self.geometry, len(self.geometry.kernel)
        x = self.x.movedim(1, -1)
        x = F.pad(x, (0, 0, *self._sides)) if any(g.padding) else x
        x = self._unfolded(x, first=1).movedim(1 + axes, -1)  # [b, *pixels, *kernel, c]
        patches = x.reshape(len(x), self.delta.shape[2:].numel(), prod(g.kernel), g.groups, -1)
        return patches.permute(0, 3, 1, 2, 4).flatten(3)

    def _unfolded(self, x: Tensor, first: int) -> Tensor:
        """Return a view with the kernel's axes at the end; of the pixels only those that the output has."""
        g = self.geometry
        for axis, pixels in enumerate(self.delta.shape[2:]):
            x = x.unfold(first + axis, g.dilation[axis] * (g.kernel[axis] - 1) + 1, g.stride[axis])
            x = x[..., :: g.dilation[axis]].narrow(first + axis, 0, pixels)
        return x

    def _convolved(self, right: Tensor) -> Float[Tensor, "b r2 t"]:
        g = self.geometry
        convolve = (F.conv1d, F.conv2d, F.conv3d)[len(g.kernel) - 1]
        columns = right[:, :-1] if self.bias else right
        kernels = columns.reshape(len(right), self.x.shape[1], *g.kernel)
        offset = right[:, -1] if self.bias else None
        found = convolve(self.x, kernels, offset, g.stride, g.padding, g.dilation)
        for axis, pixels in enumerate(self.delta.shape[2:]):  # the adjoint may see pixels that its input does not have
            found = found.narrow(2 + axis, 0, pixels)
        return found.flatten(2)

    @property
    def _sides(self) -> tuple[int, ...]:
        return tuple(side for pad in reversed(self.geometry.padding) for side in (pad, pad))
