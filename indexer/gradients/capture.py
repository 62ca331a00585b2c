"""Factors of a whole batch from one forward pass and one backward pass that computes no gradient of a weight.

Two ways, the same numbers:

* `eager`: delta is taken where it passes, by a hook on each call's output, and what is asked for of a parameter block
  is made as soon as the block is complete; then its factors are dropped. The hook belongs to the output as the call
  made it: an in-place activation after it changes nothing. No weight asks for a gradient, so autograd saves no input
  for it and computes none.
* `tapped`: a zero is added to every output and ``torch.func.grad`` asks for its gradient. Purely functional, so
  ``vmap`` can run it at all checkpoints at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad

from indexer.errors import TaskError
from indexer.gradients.block import BlockGradient, DenseGradient, FactorGradient
from indexer.gradients.calls import watching
from indexer.gradients.functions import FunctionCall
from indexer.gradients.layout import Block, CallSite, Layout
from indexer.gradients.names import ParameterNames, Piece
from indexer.gradients.partial_uses import Repeated, Rows
from indexer.gradients.uses import Use
from indexer.task import Loss

State = Mapping[str, Tensor]
Gradients = dict[str, BlockGradient]
T = TypeVar("T")
Keep = Callable[[str, BlockGradient], T]


@dataclass(frozen=True, slots=True)
class Captured(Generic[T]):
    """What one pass gives: what was kept of the gradient of every block, and the loss of every example."""

    kept: dict[str, T]
    loss: Float[Tensor, " b"]


def whole(name: str, gradient: BlockGradient) -> BlockGradient:
    """Keep the gradient itself, factors and all."""
    return gradient


def eager(
    module: nn.Module, state: State, loss: Loss, batch: tuple[Tensor, Tensor], layout: Layout, keep: Keep[T]
) -> Captured[T]:
    """Return keep(block, gradient) of every block on the factor path or that of copies, at one state of the weights.

    Raises:
        TaskError: the forward pass made other calls than when the layout was traced.
    """
    inputs, targets = batch
    plain = {name: tensor.detach() for name, tensor in state.items()}
    copies = {block.name: copies_of(plain[block.name], block, len(inputs)) for block in layout.on("copies")}
    leaves = {name: copy.requires_grad_() for name, copy in copies.items()}
    stream = _Stream(layout, len(inputs), keep, _dtype(state))
    anchor = torch.zeros((), requires_grad=True)  # asked for its gradient so that autograd visits every call

    def follow(position: int, call: FunctionCall, output: Tensor) -> Tensor:
        arrived = stream.expect(position, (call.x.detach(), *call.constants), output.shape)
        if output.requires_grad:
            output.register_hook(arrived)  # type: ignore[no-untyped-call]
            return output
        started: Tensor = _Source.apply(output, anchor, arrived)  # type: ignore[no-untyped-call]
        return started

    recorder = _SiteRecorder(plain, layout, len(inputs), follow)
    with torch.enable_grad(), watching(recorder):
        outputs = functional_call(module, {**plain, **leaves}, (inputs,))
        losses = loss(outputs, targets)
    recorder.check()
    stream.listening = True
    found: Sequence[Tensor | None] = [None] * len(leaves)
    if losses.requires_grad:
        asked = [*leaves.values(), anchor]
        found = torch.autograd.grad(losses, asked, torch.ones_like(losses), allow_unused=True)[:-1]
    kept = stream.finish()
    for block, delta in zip(layout.on("copies"), found, strict=True):
        values = torch.zeros_like(leaves[block.name]) if delta is None else delta
        kept[block.name] = keep(block.name, DenseGradient(values.reshape(len(inputs), *block.shape)))
    return Captured(kept, losses.detach())


def tapped(
    module: nn.Module, state: State, loss: Loss, batch: tuple[Tensor, Tensor], layout: Layout, keep: Keep[T]
) -> Captured[T]:
    """Return the same as `eager`, as a pure function of the state that ``vmap`` can batch.

    Raises:
        TaskError: the forward pass made other calls than when the layout was traced.
    """
    inputs, targets = batch
    b, dtype = len(inputs), _dtype(state)

    def zeros(shape: Sequence[int]) -> Tensor:
        return torch.zeros(tuple(shape), dtype=dtype, device=inputs.device)

    taps = [zeros(_spread(site, b)) for site in layout.sites]
    copy_taps = {block.name: zeros((b, *_copied(block)[1:])) for block in layout.on("copies")}

    def total(taps: list[Tensor], copy_taps: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, list[Any]]]:
        seen: list[Any] = []

        def follow(position: int, call: FunctionCall, output: Tensor) -> Tensor:
            seen.append((call.x, *call.constants))
            return output + taps[position]

        recorder = _SiteRecorder(state, layout, b, follow)
        copies = {block.name: copies_of(state[block.name], block, b) for block in layout.on("copies")}
        tapped_copies = {name: copies[name] + tap for name, tap in copy_taps.items()}
        with watching(recorder):
            outputs = functional_call(module, {**state, **tapped_copies}, (inputs,))
            losses = loss(outputs, targets)
        recorder.check()
        return losses.sum(), (losses, seen)

    (deltas, copy_deltas), (losses, seen) = grad(total, argnums=(0, 1), has_aux=True)(taps, copy_taps)
    stream = _Stream(layout, b, keep, dtype)
    for position, (inputs_of_call, delta) in enumerate(zip(seen, deltas, strict=True)):
        stream.take(position, inputs_of_call, delta)
    kept = stream.finish()
    for block in layout.on("copies"):
        kept[block.name] = keep(block.name, DenseGradient(copy_deltas[block.name].reshape(b, *block.shape)))
    return Captured(kept, losses)


def copies_of(parameter: Tensor, block: Block, b: int) -> Tensor:
    """Return the parameter once for every example, [b, …], without taking more memory."""
    shape = _copied(block)
    return parameter.reshape(shape).expand(b, *shape[1:])


class _Source(torch.autograd.Function):
    """Makes an output that nothing differentiable led to the start of a graph, in place: no copy of it is made."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, arrived: Callable[[Tensor], None]) -> Tensor:
        """Return the output, now with a gradient."""
        ctx.arrived = arrived
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor) -> tuple[None, None, None]:
        """Hand delta over; nothing before it wants one."""
        ctx.arrived(deltas[0])
        return None, None, None


class _Stream(Generic[T]):
    """Gathers the uses of every block as deltas arrive, in any order; a block whose last use is there is made."""

    def __init__(self, layout: Layout, b: int, keep: Keep[T], dtype: torch.dtype) -> None:
        self._layout = layout
        self._b = b
        self._keep = keep
        self._dtype = dtype
        self._rows = {block.name: block.shape[0] for block in layout.on("factors")}
        self._left = {block.name: 0 for block in layout.on("factors")}
        for site in layout.sites:
            for name in _feeds(site):
                self._left[name] += 1
        self._uses: dict[str, dict[tuple[int, int], Use]] = {name: {} for name in self._left}
        self._kept: dict[str, T] = {}
        self._expected: dict[int, tuple[tuple[Tensor, ...], torch.Size]] = {}
        self.listening = False

    def expect(self, position: int, inputs: tuple[Tensor, ...], shape: torch.Size) -> Callable[[Tensor], None]:
        """Keep the inputs of a call until its delta arrives; return what takes the delta.

        A gradient that the model itself asks for in its forward pass is not that delta: nobody is listening yet.
        """
        self._expected[position] = (inputs, shape)

        def arrived(delta: Tensor) -> None:
            if self.listening:
                self.take(position, self._expected.pop(position)[0], delta)

        return arrived

    def take(self, position: int, inputs: tuple[Tensor, ...], delta: Tensor) -> None:
        """Make the uses of one call."""
        site = self._layout.sites[position]
        with torch.no_grad():
            for kind, (name, use) in enumerate(_uses(site, inputs, delta, self._rows, self._b)):
                self._uses[name][position, kind] = use
                self._left[name] -= 1
                if self._left[name] == 0:
                    self._make(name)

    def finish(self) -> dict[str, T]:
        """Give the calls that no delta reached a delta of zero, and return what was kept of every block."""
        for position, (inputs, shape) in sorted(self._expected.items()):
            self.take(position, inputs, torch.zeros(shape, dtype=self._dtype, device=inputs[0].device))
        return {block.name: self._kept[block.name] for block in self._layout.on("factors")}

    def _make(self, name: str) -> None:
        uses = self._uses.pop(name)
        self._kept[name] = self._keep(name, FactorGradient(tuple(uses[place] for place in sorted(uses))))


class _SiteRecorder:
    """Follows the call sites of a layout in order, spreads each output, and lets ``follow`` see call and output."""

    def __init__(
        self, tensors: State, layout: Layout, b: int, follow: Callable[[int, FunctionCall, Tensor], Tensor]
    ) -> None:
        self._names = ParameterNames({name: tensors[name] for name in layout.factor_parameters})
        self._sites = layout.sites
        self._b = b
        self._follow = follow
        self._count = 0

    def record(self, call: FunctionCall, output: Tensor) -> Tensor:
        pieces = (self._names.of(call.weight), self._names.of(call.bias))
        if pieces == (None, None):
            return output
        if self._count >= len(self._sites):
            raise TaskError(_OTHER_PATH)
        site = self._sites[self._count]
        expected = site.function, site.pieces, site.place.shape(site.output, self._b)
        if (call.function, pieces, tuple(output.shape)) != expected:
            raise TaskError(_OTHER_PATH)
        self._count += 1
        return self._follow(self._count - 1, call, site.place.spread(output, self._b))

    def check(self) -> None:
        if self._count != len(self._sites):
            raise TaskError(_OTHER_PATH)


_OTHER_PATH = (
    "the model's forward pass made other calls than when it was traced; Proponent needs the same layers for every "
    "input: remove the data-dependent branch"
)


def _dtype(state: State) -> torch.dtype:
    """Return the dtype of the weights; counters and masks among the buffers have another."""
    return next(tensor.dtype for tensor in state.values() if tensor.is_floating_point())


def _feeds(site: CallSite) -> list[str]:
    """Return the blocks that a call feeds, its weight's first."""
    return [name for name in dict.fromkeys((site.weight, site.bias)) if name is not None]


def _uses(
    site: CallSite, inputs: tuple[Tensor, ...], delta: Tensor, rows: Mapping[str, int], b: int
) -> list[tuple[str, Use]]:
    """Return (block, use) for what one call contributes."""
    x, delta, times = site.place.of_input(inputs[0], b), site.place.of_delta(delta, b), 1
    if not site.rule.leading and len(site.output) < delta.ndim:  # an example has several rows of the call's batch
        times, x, delta = delta.shape[1], x.flatten(0, 1), delta.flatten(0, 1)
    found: list[tuple[str, Use]] = []
    if site.weight is not None:
        use = site.rule.weight_use(x, inputs[1:], delta, site.bias == site.weight)
        found.append((site.weight, _partial(use, times, site.pieces[0], rows[site.weight])))
    if site.bias is not None and site.bias != site.weight:
        found.append((site.bias, _partial(site.rule.bias_use(delta), times, site.pieces[1], rows[site.bias])))
    return found


def _partial(use: Use, times: int, piece: Piece | None, m: int) -> Use:
    use = use if times == 1 else Repeated(use, times)
    return use if piece is None or piece.rows is None else Rows(use, piece.rows, m)


def _spread(site: CallSite, b: int) -> tuple[int, ...]:
    """Return the shape of the output that the model goes on with."""
    shape = site.place.shape(site.output, b)
    return tuple(site.place.spread(torch.empty(shape, device="meta"), b).shape)


def _copied(block: Block) -> tuple[int, ...]:
    assert block.copied is not None, block
    return block.copied
