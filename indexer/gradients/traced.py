"""A pass over one example as a graph of tensor operations: Python, autograd and ``vmap`` are gone through once.

A small model's query spends half its time there, and not in arithmetic. `TracedPasses` runs a pass on stand-ins for
its tensors, keeps the operations that they meet (``make_fx``), and from then on runs those under ``inference_mode``.

Correct or not at all. A stand-in has a shape and a dtype and no values, so whatever looks at a value in Python (a
branch, ``item()``, ``tolist()``, ``numpy()``, an index by a mask) fails the tracing and cannot be burnt into the graph.
Weights, matrices, input and target are arguments; what the model or the loss holds beside them is a constant, kept by
reference. Before a graph is used it must give what the pass gives, on the traced example and on another one. Where any
of this fails the pass runs as it is, and says why.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from indexer.errors import TaskError
from indexer.gradients.observe import TRIAL_ERRORS
from indexer.gradients.simplify import simplify

LIMIT = 8  # graphs of one model: an index asks for one or two
ROUNDINGS = (
    64  # of the dtype, relative to a checkpoint's norm: the same kernels differ by none, a burnt-in value by far
)

Named = Mapping[str, Tensor]
Found = tuple[Tensor, Tensor]  # [c, b, d] and [c, b]
Batch = tuple[Tensor, Tensor]
Function = Callable[..., Any]
Pass = Callable[[Batch, Named, Named], Found]  # of a batch, the weights and the matrices; pure

_tracing = threading.Lock()  # torch.fx exchanges methods of nn.Module while it traces


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    """What came of tracing: a graph, or why there is none; for these functions and tensors like these."""

    functions: tuple[Callable[[], Function | None], ...]
    likeness: tuple[Any, ...]
    graph: GraphModule | None
    reason: str | None

    def fits(self, functions: Sequence[Function], likeness: tuple[Any, ...]) -> bool:
        pairs = zip(self.functions, functions, strict=True)
        return self.likeness == likeness and all(_same(kept(), given) for kept, given in pairs)


class TracedPasses:
    """The graphs of one module at its stacked weights; the least recently used goes. One thread at a time.

    reason: why the last pass did not run as a graph; None where it did.
    """

    def __init__(self, module: nn.Module, weights: Named) -> None:
        self._module = module
        self._weights = weights
        self._outcomes: list[_Outcome] = []
        self.reason: str | None = None

    def run(self, one: Pass, functions: Sequence[Function], batch: Batch, matrices: Named) -> Found:
        """Return one(batch, weights, matrices); functions: those that ``one`` is made of, by which it is known again.

        The functions are held weakly, and taken to be pure: what they hold must not change.
        """
        self.reason = _why_never(batch[0])
        if self.reason is not None:
            return one(batch, self._weights, matrices)
        likeness = _likeness(batch, matrices)
        outcome = next((kept for kept in self._outcomes if kept.fits(functions, likeness)), None)
        if outcome is None:
            expected = one(batch, self._weights, matrices)
            if not all(bool(part.isfinite().all()) for part in expected):
                self.reason = "its result is not finite, so that no graph can be compared with it"
                return expected
            graph, reason = self._trace(one, functions, batch, matrices, expected)
            outcome = _Outcome(tuple(map(_weakly, functions)), likeness, graph, reason)
            self._outcomes = [kept for kept in self._outcomes if all(held() for held in kept.functions)]
        else:
            self._outcomes.remove(outcome)
        self._outcomes = [*self._outcomes, outcome][-LIMIT:]
        self.reason = outcome.reason
        if outcome.graph is not None:
            try:
                return self._through(outcome.graph, batch, matrices)
            except TRIAL_ERRORS as exc:  # if the example is at fault, the pass raises it too
                self.reason = f"its graph fails: {_said(exc)}"
        return one(batch, self._weights, matrices)

    def _through(self, graph: GraphModule, batch: Batch, matrices: Named) -> Found:
        with torch.inference_mode():
            vectors, values = graph.forward(*batch, *self._weights.values(), *matrices.values())
        return vectors.clone(), values.clone()  # outside, so that callers may differentiate and change them

    def _trace(
        self, one: Pass, functions: Sequence[Function], batch: Batch, matrices: Named, expected: Found
    ) -> tuple[GraphModule | None, str | None]:
        """Return a graph that gives what the pass gives, or why there is none."""

        def flat(x: Tensor, y: Tensor, *tensors: Tensor) -> Found:
            weights = dict(zip(self._weights, tensors, strict=False))
            with torch._C.DisableTorchFunction():  # make_fx follows functions by calling them again: watched twice
                return one((x, y), weights, dict(zip(matrices, tensors[len(weights) :], strict=True)))

        try:
            with _tracing, _attributes_kept([self._module, *functions]):
                graph = _graph(flat, [*batch, *self._weights.values(), *matrices.values()])
            simplify(graph)
            if self._differs(graph, batch, matrices, expected):
                return None, "its graph gives something else on the traced example"
            reason = self._why_not_another(graph, one, batch, matrices)
        except (*TRIAL_ERRORS, TaskError) as exc:
            return None, f"it cannot be traced: {_said(exc)}"
        return (graph, None) if reason is None else (None, reason)

    def _why_not_another(self, graph: GraphModule, one: Pass, batch: Batch, matrices: Named) -> str | None:
        """Return what is wrong with a graph on another example, if anything is."""
        for other in _others(batch):
            try:
                expected = one(other, self._weights, matrices)
            except (*TRIAL_ERRORS, TaskError):
                continue  # not an example of this model
            if all(bool(part.isfinite().all()) for part in expected):
                differs = self._differs(graph, other, matrices, expected)
                return "its graph gives something else on another example" if differs else None
        return "there is no other example on which its graph could be compared"

    def _differs(self, graph: GraphModule, batch: Batch, matrices: Named, expected: Found) -> bool:
        found = self._through(graph, batch, matrices)
        return any(map(_unlike, found, expected))


def _graph(flat: Callable[..., Found], tensors: Sequence[Tensor]) -> GraphModule:
    """Return the operations of a function of tensors like these."""
    with functorch_config.patch(fake_tensor_allow_unsafe_data_ptr_access=False):  # they would read at address 0
        stand_in = FakeTensorMode(allow_fallback_kernels=False, allow_non_fake_inputs=True)
    with torch.inference_mode(False), stand_in:
        stand_ins = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device) for t in tensors]
        return make_fx(flat)(*stand_ins)


@contextmanager
def _attributes_kept(functions: Sequence[Function]) -> Iterator[None]:
    """Put back what modules keep of a forward pass in attributes: those of a tracing are stand-ins."""
    held = [vars(part) for module in functions if isinstance(module, nn.Module) for part in module.modules()]
    held += [value for attributes in held for value in attributes.values() if type(value) is dict]
    before = [dict(kept) for kept in held]
    try:
        yield
    finally:
        for kept, old in zip(held, before, strict=True):
            kept.clear()
            kept.update(old)


def _why_never(x: Tensor) -> str | None:
    """Return what of the place or time rules a graph out."""
    if x.device.type != "cpu":
        return f"graphs are for the CPU; the model is on {x.device}"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    return None


def _likeness(batch: Batch, matrices: Named) -> tuple[Any, ...]:
    """Return all that a graph depends on of its arguments but their values."""
    tensors = (*batch, *matrices.values())
    return torch.get_default_dtype(), *matrices, *((t.shape, t.stride(), t.dtype) for t in tensors)


def _weakly(function: Function) -> Callable[[], Function | None]:
    """Return what gives the function for as long as others hold it: a method may hold all matrices of an index."""
    try:
        return weakref.WeakMethod(function) if isinstance(function, MethodType) else weakref.ref(function)
    except TypeError:  # it cannot be held weakly, such as a method of a slotted dataclass
        return lambda: function


def _said(exc: Exception) -> str:
    return f"{type(exc).__name__}: {str(exc).strip().split(chr(10), 1)[0][:160]}"


def _same(kept: Function | None, given: Function) -> bool:
    return kept is given or (isinstance(kept, MethodType) and isinstance(given, MethodType) and kept == given)


def _unlike(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return True
    bound = ROUNDINGS * torch.finfo(expected.dtype).eps * expected.flatten(1).norm(dim=1)
    return not bool(((found - expected).flatten(1).norm(dim=1) <= bound).all())


def _others(batch: Batch) -> Iterator[Batch]:
    """Yield examples with other values: the first of them that the model takes will do."""
    x, y = batch
    for inputs in _changed(x):
        if not inputs.equal(x):
            yield from ((inputs, targets) for targets in (*_changed(y), y))


def _changed(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values in the opposite order, and others; no whole number that is new but 0: it may be an index."""
    turned = values.flip(tuple(range(1, values.ndim)))
    if values.dtype == torch.bool:
        return turned, ~values
    return (0.75 * turned, values + 1) if values.is_floating_point() else (turned, torch.zeros_like(values))
