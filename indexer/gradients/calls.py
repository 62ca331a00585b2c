"""Watching a forward pass at function level: every call of a function that has a rule, by parameter identity.

Module hooks miss parameters that are used through functions (the packed projection of attention, tied weights,
a weight used twice), so the functions themselves are wrapped, and only while somebody watches: `watching` puts
the wrappers in when the first recorder starts and takes them out when the last one ends. Recorders are
thread-local: a call of another thread goes straight through. The fused path of attention in ``eval()`` calls none of
the functions, so it is off for that time.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from indexer.gradients.functions import BINDERS, FunctionCall


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
_originals: dict[tuple[ModuleType, str], Callable[..., Tensor]] = {}
_fused_attention = True


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
    global _fused_attention
    _fused_attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    for (module, name), bind in BINDERS.items():
        original = getattr(module, name)
        _originals[module, name] = original
        setattr(module, name, _wrapped(original, bind))  # made once for each function and kept


def _uninstall() -> None:
    torch.backends.mha.set_fastpath_enabled(_fused_attention)
    for (module, name), original in _originals.items():
        setattr(module, name, original)
    _originals.clear()


@functools.cache
def _wrapped(original: Callable[..., Tensor], bind: Callable[..., FunctionCall]) -> Callable[..., Tensor]:
    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Tensor:
        output = original(*args, **kwargs)
        recorder = _active.recorder
        if recorder is None or not torch.is_grad_enabled():  # under no_grad a call adds nothing to any gradient
            return output
        return recorder.record(bind(*args, **kwargs), output)

    return wrapper
