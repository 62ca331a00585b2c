"""Watching a forward pass at function level: every call of a function that has a rule, by parameter identity.

Module hooks miss parameters that are used through functions (the packed projection of attention, tied weights,
a weight used twice), so the functions themselves are wrapped, and only while somebody watches: `watching` puts
the wrappers in when the first recorder starts and takes them out when the last one ends. Recorders are
thread-local: a call of another thread goes straight through.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

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
    for name, bind in BINDERS.items():
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
