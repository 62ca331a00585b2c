"""Rules: from a call that capture saw to the uses of its parameters, one small class a kind of function.

A rule is a value that the layout keeps of a call. ``folds`` says whether a bias can be one more column of its
weight's block; where it cannot, or has no weight beside it, it is a block of its own.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from indexer.gradients.uses import ConvolutionUse, DenseUse, EmbeddingUse, Geometry, LinearUse, Use


@runtime_checkable
class Rule(Protocol):
    """Makes uses from a call's input x and from delta, the gradient at its output; the batch is the first axis."""

    @property
    def folds(self) -> bool:
        """Whether the bias is one more input of the weight."""

    def weight_use(self, x: Tensor, delta: Tensor, with_bias: bool) -> Use:
        """Return what the call adds to its weight's block."""

    def bias_use(self, delta: Tensor) -> Use:
        """Return what the call adds to the block of its bias, where that is one of its own."""


@dataclass(frozen=True, slots=True)
class Linear:
    """y = W x + b over any leading axes."""

    folds: bool = True

    def weight_use(self, x: Tensor, delta: Tensor, with_bias: bool) -> Use:
        """delta and x."""
        return LinearUse(delta, x, with_bias)

    def bias_use(self, delta: Tensor) -> Use:
        """delta and 1."""
        return _alone(delta)


@dataclass(frozen=True, slots=True)
class Convolve:
    """y = conv(x, W) + b in 1 to 3 dimensions, with groups."""

    geometry: Geometry
    folds: bool = True

    def weight_use(self, x: Tensor, delta: Tensor, with_bias: bool) -> Use:
        """delta and the patches of x."""
        return ConvolutionUse(delta, x, with_bias, self.geometry)

    def bias_use(self, delta: Tensor) -> Use:
        """delta at every pixel, and 1."""
        return _alone(delta.movedim(1, -1))


@dataclass(frozen=True, slots=True)
class TransposedConvolve:
    """y = conv'(x, W) + b, the adjoint of a convolution: input and output change places.

    The weight is [inputs, outputs / groups, *kernel]: its left axis is the input's, where there is no bias to fold in.
    """

    geometry: Geometry
    folds: bool = False

    def weight_use(self, x: Tensor, delta: Tensor, with_bias: bool) -> Use:
        """x, and the patches of delta."""
        return ConvolutionUse(x, delta, False, self.geometry)

    def bias_use(self, delta: Tensor) -> Use:
        """delta at every pixel, and 1."""
        return _alone(delta.movedim(1, -1))


@dataclass(frozen=True, slots=True)
class Embed:
    """y = W[token]; the padding's row gets no gradient."""

    rows: int
    padding: int | None
    folds: bool = False

    def weight_use(self, x: Tensor, delta: Tensor, with_bias: bool) -> Use:
        """The tokens and delta."""
        if self.padding is not None:
            delta = delta * (x != self.padding)[..., None]
        return EmbeddingUse(x, delta, self.rows)

    def bias_use(self, delta: Tensor) -> Use:
        """An embedding has no bias."""
        return _alone(delta)


@dataclass(frozen=True, slots=True)
class Scale:
    """y = w * xhat + b, entry by entry, as after a normalisation: capture hands over xhat as the input.

    The gradient of w is the sum over positions of delta * xhat, that of b the sum of delta. channels: w runs over axis
    1 (batch and group norm); else over the last axes, as many as ``axes`` (layer and RMS norm).
    """

    channels: bool
    axes: int = 1
    folds: bool = False

    def weight_use(self, x: Tensor, delta: Tensor, with_bias: bool) -> Use:
        """The sum of delta * xhat."""
        return self._summed(delta * x)

    def bias_use(self, delta: Tensor) -> Use:
        """The sum of delta."""
        return self._summed(delta)

    def _summed(self, values: Tensor) -> Use:
        if self.channels:
            return _alone(values.flatten(2).sum(2) if values.ndim > 2 else values)
        last = values.shape[values.ndim - self.axes :]
        total = values.reshape(len(values), -1, *last).sum(1)
        return _alone(total) if self.axes == 1 else DenseUse(total.flatten(2))


def _alone(delta: Tensor) -> Use:
    """Return delta beside an input that is nothing but 1."""
    return LinearUse(delta, delta[..., :0], bias=True)
