"""Watching a forward pass at function level: every call of ``linear`` and ``conv2d``, by parameter identity.

Module hooks miss parameters that are used through functions (the packed projection of attention, tied weights,
a weight used twice), so the functions themselves are wrapped, and only while somebody watches: `watching` puts
the wrappers in when the first recorder starts and takes them out when the last one ends. Recorders are
thread-local: a call of another thread goes straight through.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from indexer.gradients.rules import Convolution


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """One call: its tensors, its geometry if it is a convolution, and why it has no rule, if it has none."""

    function: str
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    geometry: Convolution | None = None
    unsupported: str | None = None


@runtime_checkable
class Recorder(Protocol):
    """Sees every watched call of its thread."""

    def record(self, call: FunctionCall, output: Tensor) -> Tensor:
        """Return the output that the model shall go on with."""


class _Active(threading.local):
    recorder: Recorder | None = None


_active = _Active()
_lock = threading.Lock()
_watchers = 0
_originals: dict[str, Callable[..., Tensor]] = {}


@contextmanager
def watching(recorder: Recorder) -> Iterator[None]:
    """Send this thread's calls of the watched functions to the recorder."""
    global _watchers
    with _lock:
        if _watchers == 0:
            _install()
        _watchers += 1
    outer, _active.recorder = _active.recorder, recorder
    try:
        yield
    finally:
        _active.recorder = outer
        with _lock:
            _watchers -= 1
            if _watchers == 0:
                _uninstall()


def _install() -> None:
    for name, bind in _BINDERS.items():
        original = getattr(F, name)
        _originals[name] = original
        setattr(F, name, _wrapped(original, bind))


def _uninstall() -> None:
    for name, original in _originals.items():
        setattr(F, name, original)
    _originals.clear()


def _wrapped(original: Callable[..., Tensor], bind: Callable[..., FunctionCall]) -> Callable[..., Tensor]:
    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Tensor:
        output = original(*args, **kwargs)
        recorder = _active.recorder
        if recorder is None or not torch.is_grad_enabled():  # under no_grad a call adds nothing to any gradient
            return output
        return recorder.record(bind(*args, **kwargs), output)

    return wrapper


def _bind_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> FunctionCall:
    unsupported = None if weight.ndim == 2 else "linear with a vector as weight"
    return FunctionCall("linear", input, weight, bias, unsupported=unsupported)


def _bind_conv2d(  # noqa: PLR0913 - the signature of torch.nn.functional.conv2d
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> FunctionCall:
    kernel = (weight.shape[2], weight.shape[3])
    dilations = _two(dilation)
    unsupported = "grouped convolution" if groups != 1 else None
    if isinstance(padding, str):
        full = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilations, kernel, strict=True)]
        if any(pad % 2 for pad in full):
            unsupported = "'same' padding of unequal sides"
        padding = (full[0] // 2, full[1] // 2)
    geometry = Convolution(kernel, _two(stride), _two(padding), dilations)
    return FunctionCall("conv2d", input, weight, bias, geometry, unsupported)


def _two(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


_BINDERS: dict[str, Callable[..., FunctionCall]] = {"linear": _bind_linear, "conv2d": _bind_conv2d}
