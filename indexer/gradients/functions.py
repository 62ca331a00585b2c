"""The functions that capture watches, and what a call of each means: its tensors and its rule.

A binder takes the arguments of a function of PyTorch by that function's own names. What it cannot give a rule for it
says in words; the parameters of such a call take a general path.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from indexer.gradients.convolution_use import Geometry
from indexer.gradients.rules import (
    Convolve,
    Embed,
    EmbedBag,
    Linear,
    Normalise,
    Rule,
    Scale,
    TransposedConvolve,
    TransposedLinear,
)

Axes = int | Sequence[int]


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """One call: the input as its rule needs it, its parameters, and its rule or why it has none.

    constants: what else the rule needs, without a batch.
    """

    function: str
    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    rule: Rule | None
    unsupported: str | None = None
    constants: tuple[Tensor, ...] = ()


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


def _embedding_bag(  # noqa: PLR0913 - the signature of torch.nn.functional
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float | int = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> FunctionCall:
    reasons = {
        "embedding_bag with max_norm": max_norm is not None,
        "embedding_bag with scale_grad_by_freq": scale_grad_by_freq,
        "embedding_bag with mode='max'": mode == "max",
        "embedding_bag with per_sample_weights": per_sample_weights is not None,
        "embedding_bag with offsets": input.ndim != 2 or offsets is not None,
    }
    why = next((text for text, found in reasons.items() if found), None)
    padding = None if padding_idx is None else padding_idx % len(weight)
    rule = None if why else EmbedBag(len(weight), padding, mean=mode == "mean")
    return FunctionCall("embedding_bag", input, weight, None, rule, why)


def _addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float | int = 1, alpha: float | int = 1) -> FunctionCall:
    usual = beta == 1 and alpha == 1 and input.ndim == 1
    why = None if usual else "addmm with factors, or without a vector as bias"
    return FunctionCall("addmm", mat1, mat2, input, TransposedLinear() if usual else None, why)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> FunctionCall:
    shape = tuple(normalized_shape)
    rule = Scale(Normalise("layer", eps, shape), channels=False, axes=len(shape))
    return FunctionCall("layer_norm", input, weight, bias, rule)


def _rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> FunctionCall:
    shape = tuple(normalized_shape)
    rule = Scale(Normalise("rms", eps, shape), channels=False, axes=len(shape))
    return FunctionCall("rms_norm", input, weight, None, rule)


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> FunctionCall:
    rule = Scale(Normalise("group", eps, groups=num_groups), channels=True)
    return FunctionCall("group_norm", input, weight, bias, rule)


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
    rule = Scale(Normalise("batch", eps), channels=True)
    return FunctionCall("batch_norm", input, weight, bias, rule, constants=(running_mean, running_var))


def _each(value: Axes, axes: int) -> tuple[int, ...]:
    """Return one number an axis."""
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) * (axes if len(value) == 1 else 1)


BINDERS: Mapping[tuple[ModuleType, str], Callable[..., FunctionCall]] = {
    (F, "linear"): _linear,
    **{(F, f"conv{axes}d"): _convolution(axes) for axes in (1, 2, 3)},
    **{(F, f"conv_transpose{axes}d"): _transposed(axes) for axes in (1, 2, 3)},
    (F, "embedding"): _embedding,
    (F, "embedding_bag"): _embedding_bag,
    (F, "layer_norm"): _layer_norm,
    (F, "rms_norm"): _rms_norm,
    (F, "group_norm"): _group_norm,
    (F, "batch_norm"): _batch_norm,
    (torch, "addmm"): _addmm,
}
