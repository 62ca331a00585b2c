"""Rules: from a call that capture saw to the uses of its parameters, one small class a kind of function.

A rule is a value that the layout keeps of a call. ``folds`` says whether a bias can be one more column of its
weight's block; where it cannot, or has no weight beside it, it is a block of its own. ``leading`` says whether it
takes any number of axes between the batch and what it works on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from indexer.gradients.convolution_use import ConvolutionUse, Geometry
from indexer.gradients.uses import DenseUse, EmbeddingUse, LinearUse, Use

Constants = Sequence[Tensor]


@runtime_checkable
class Rule(Protocol):
    """Makes uses from a call's input x and from delta, the gradient at its output; the batch is the first axis.

    constants: what else the call was given, without a batch.
    """

    @property
    def folds(self) -> bool:
        """Whether the bias is one more input of the weight."""

    @property
    def leading(self) -> bool:
        """Whether positions may stand between the batch and the axes that the rule reads."""

    def weight_use(self, x: Tensor, constants: Constants, delta: Tensor, with_bias: bool) -> Use:
        """Return what the call adds to its weight's block."""

    def bias_use(self, delta: Tensor) -> Use:
        """Return what the call adds to the block of its bias, where that is one of its own."""


@dataclass(frozen=True, slots=True)
class Linear:
    """y = W x + b over any leading axes."""

    folds: bool = True
    leading: bool = True

    def weight_use(self, x: Tensor, constants: Constants, delta: Tensor, with_bias: bool) -> Use:
        """delta and x."""
        return LinearUse(delta, x, with_bias)

    def bias_use(self, delta: Tensor) -> Use:
        """delta and 1."""
        return _alone(delta)


@dataclass(frozen=True, slots=True)
class TransposedLinear:
    """y = x W + b, with a weight of [inputs, outputs] (``addmm``; the Conv1D of GPT-2): left and right change places.

    The bias belongs to the right axis, where there is no column for it.
    """

    folds: bool = False
    leading: bool = True

    def weight_use(self, x: Tensor, constants: Constants, delta: Tensor, with_bias: bool) -> Use:
        """x and delta."""
        return LinearUse(x, delta, False)

    def bias_use(self, delta: Tensor) -> Use:
        """delta and 1."""
        return _alone(delta)


@dataclass(frozen=True, slots=True)
class Convolve:
    """y = conv(x, W) + b in 1 to 3 dimensions, with groups."""

    geometry: Geometry
    folds: bool = True
    leading: bool = False

    def weight_use(self, x: Tensor, constants: Constants, delta: Tensor, with_bias: bool) -> Use:
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
    leading: bool = False

    def weight_use(self, x: Tensor, constants: Constants, delta: Tensor, with_bias: bool) -> Use:
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
    leading: bool = True

    def weight_use(self, x: Tensor, constants: Constants, delta: Tensor, with_bias: bool) -> Use:
        """The tokens and delta."""
        if self.padding is not None:
            delta = delta * (x != self.padding)[..., None]
        return EmbeddingUse(x, delta, self.rows)

    def bias_use(self, delta: Tensor) -> Use:
        """An embedding has no bias."""
        return _alone(delta)


@dataclass(frozen=True, slots=True)
class EmbedBag:
    """y = sum or mean over a bag of W[token]; tokens [b, …, bag], delta [b, …, n]; padding tokens do not count."""

    rows: int
    padding: int | None
    mean: bool
    folds: bool = False
    leading: bool = True

    def weight_use(self, x: Tensor, constants: Constants, delta: Tensor, with_bias: bool) -> Use:
        """The tokens, and delta once a token of the bag."""
        counts = torch.ones_like(x) if self.padding is None else (x != self.padding).long()
        share = counts.to(delta.dtype)
        if self.mean:
            share = share / counts.sum(-1, keepdim=True).clamp_min(1)
        return EmbeddingUse(x, share[..., None] * delta[..., None, :], self.rows)

    def bias_use(self, delta: Tensor) -> Use:
        """A bag has no bias."""
        return _alone(delta)


@dataclass(frozen=True, slots=True)
class Normalise:
    """What a normalisation does before it scales: xhat, from its input and its constants.

    shape: the axes of a layer or RMS norm; groups: of a group norm; a batch norm has (mean, variance) as constants.
    """

    kind: Literal["layer", "rms", "group", "batch"]
    eps: float | None
    shape: tuple[int, ...] = ()
    groups: int = 1

    def __call__(self, x: Tensor, constants: Constants) -> Tensor:
        """Return xhat, of the shape of x; for a batch norm before it is divided by the deviation, see `factor`."""
        if self.kind == "layer":
            return torch.layer_norm(x, self.shape, None, None, self.eps or 0.0)
        if self.kind == "rms":
            return torch.rms_norm(x, self.shape, None, self.eps)
        if self.kind == "group":
            return torch.group_norm(x, self.groups, None, None, self.eps or 0.0)
        mean = constants[0]
        across = (1, -1, *(1 for _ in x.shape[2:]))
        return x - mean.reshape(across)

    def factor(self, constants: Constants) -> Tensor | None:
        """Return the factor of every channel [c] that is still missing: it can wait until positions are summed."""
        return (constants[1] + (self.eps or 0.0)).rsqrt() if self.kind == "batch" else None


@dataclass(frozen=True, slots=True)
class Scale:
    """y = w * xhat + b, entry by entry, after a normalisation.

    The gradient of w is the sum over positions of delta * xhat, that of b the sum of delta. channels: w runs over axis
    1 (batch and group norm); else over the last axes, as many as ``axes`` (layer and RMS norm).
    """

    normalise: Normalise
    channels: bool
    axes: int = 1
    folds: bool = False

    @property
    def leading(self) -> bool:
        """Not before channels."""
        return not self.channels

    def weight_use(self, x: Tensor, constants: Constants, delta: Tensor, with_bias: bool) -> Use:
        """The sum of delta * xhat."""
        total, factor = self._summed(delta * self.normalise(x, constants)), self.normalise.factor(constants)
        return self._use(total if factor is None else total * factor)

    def bias_use(self, delta: Tensor) -> Use:
        """The sum of delta."""
        return self._use(self._summed(delta))

    def _summed(self, values: Tensor) -> Tensor:
        if self.channels:
            return values.flatten(2).sum(2) if values.ndim > 2 else values
        last = values.shape[values.ndim - self.axes :]
        return values.reshape(len(values), -1, *last).sum(1)

    def _use(self, total: Tensor) -> Use:
        return _alone(total) if self.channels or self.axes == 1 else DenseUse(total.flatten(2))


def _alone(delta: Tensor) -> Use:
    """Return delta beside an input that is nothing but 1."""
    return LinearUse(delta, delta[..., :0], bias=True)
