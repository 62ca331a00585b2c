"""The functions that capture watches, and what a call of each means: its tensors and its rule.

A binder takes the arguments of a function of ``torch.nn.functional`` by that function's own names. What it cannot give
a rule for it says in words; the parameters of such a call take a general path.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from indexer.gradients.rules import Convolve, Embed, Linear, Rule, Scale, TransposedConvolve
from indexer.gradients.uses import Geometry

Axes = int | Sequence[int]


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """One call: the input as its rule needs it, its parameters, and its rule or why it has none."""

    function: str
    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    rule: Rule | None
    unsupported: str | None = None


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> FunctionCall:
    if weight.ndim != 2:
        return FunctionCall("linear", input, weight, bias, None, "linear with a vector as weight")
    return FunctionCall("linear", input, weight, bias, Linear())


def _convolution(axes: int) -> Callable[..., FunctionCall]:
    name = f"conv{axes}d"

    def bind(  # noqa: PLR0913 - the signature of torch.nn.functional
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Axes = 1,
        padding: Axes | str = 0,
        dilation: Axes = 1,
        groups: int = 1,
    ) -> FunctionCall:
        if input.ndim != axes + 2:
            return FunctionCall(name, input, weight, bias, None, f"{name} without a batch axis")
        kernel, dilations = tuple(weight.shape[2:]), _each(dilation, axes)
        x = input
        if isinstance(padding, str):
            if padding == "same":  # the odd pixel goes to the far side, as in PyTorch
                full = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
                sides = [side for pad in reversed(full) for side in (pad // 2, pad - pad // 2)]
                x = torch.constant_pad_nd(input, sides)
            padding = 0
        geometry = Geometry(kernel, _each(stride, axes), _each(padding, axes), dilations, groups)
        return FunctionCall(name, x, weight, bias, Convolve(geometry))

    return bind


def _transposed(axes: int) -> Callable[..., FunctionCall]:
    name = f"conv_transpose{axes}d"

    def bind(  # noqa: PLR0913 - the signature of torch.nn.functional
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Axes = 1,
        padding: Axes = 0,
        output_padding: Axes = 0,
        groups: int = 1,
        dilation: Axes = 1,
    ) -> FunctionCall:
        if input.ndim != axes + 2:
            return FunctionCall(name, input, weight, bias, None, f"{name} without a batch axis")
        kernel, dilations = tuple(weight.shape[2:]), _each(dilation, axes)
        geometry = Geometry(kernel, _each(stride, axes), _each(padding, axes), dilations, groups)
        return FunctionCall(name, input, weight, bias, TransposedConvolve(geometry))

    return bind


def _embedding(  # noqa: PLR0913 - the signature of torch.nn.functional
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> FunctionCall:
    why = "embedding with max_norm" if max_norm is not None else None
    why = "embedding with scale_grad_by_freq" if scale_grad_by_freq else why
    padding = None if padding_idx is None else padding_idx % len(weight)
    rule = None if why else Embed(len(weight), padding)
    return FunctionCall("embedding", input, weight, None, rule, why)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> FunctionCall:
    x = torch.layer_norm(input, tuple(normalized_shape), None, None, eps)
    return FunctionCall("layer_norm", x, weight, bias, Scale(channels=False, axes=len(normalized_shape)))


def _rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> FunctionCall:
    x = torch.rms_norm(input, tuple(normalized_shape), None, eps)
    return FunctionCall("rms_norm", x, weight, None, Scale(channels=False, axes=len(normalized_shape)))


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> FunctionCall:
    x = torch.group_norm(input, num_groups, None, None, eps)
    return FunctionCall("group_norm", x, weight, bias, Scale(channels=True))


def _batch_norm(  # noqa: PLR0913 - the signature of torch.nn.functional
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> FunctionCall:
    if training or running_mean is None or running_var is None:
        return FunctionCall("batch_norm", input, weight, bias, None, "batch_norm over the batch itself")
    shape = (1, -1, *(1 for _ in input.shape[2:]))
    x = (input - running_mean.reshape(shape)) * (running_var.reshape(shape) + eps).rsqrt()
    return FunctionCall("batch_norm", x, weight, bias, Scale(channels=True))


def _each(value: Axes, axes: int) -> tuple[int, ...]:
    """Return one number an axis."""
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) * (axes if len(value) == 1 else 1)


BINDERS: Mapping[str, Callable[..., FunctionCall]] = {
    "linear": _linear,
    **{f"conv{axes}d": _convolution(axes) for axes in (1, 2, 3)},
    **{f"conv_transpose{axes}d": _transposed(axes) for axes in (1, 2, 3)},
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "batch_norm": _batch_norm,
}
