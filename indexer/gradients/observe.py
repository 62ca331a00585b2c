"""Observing a model on a few real examples: which functions use which parameters, and where their examples sit.

Where a call's examples sit is read off twice: from the shapes of its output for b examples and for b - 1, and from
which entries of its output the loss of each example depends on, and the model's own outputs for it. A place must agree
with all of them: the loss of the first few examples may be flat (beyond a margin, all tokens ignored), and nothing but
agreement by accident would be left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.func import functional_call

from indexer.gradients.calls import watching
from indexer.gradients.functions import FunctionCall
from indexer.gradients.names import ParameterNames, Piece
from indexer.gradients.place import Place, batched_places, shared_places
from indexer.task import Loss

TRIAL_ERRORS = (  # what a model raises that is given a tensor of another shape
    *(RuntimeError, ValueError, TypeError, LookupError),
    *(AssertionError, AttributeError, ArithmeticError),
)
SAME = 1e-9  # relative, float64: outputs of a model whose shared tables were copied for every example

State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Seen:
    """A call with the pieces of chosen parameters that it uses.

    output: the shape that the function gave; edge: where the gradient at what the model went on with arrives; via: for
    a piece that is only some rows, the node of the graph that cut it out of its parameter.
    """

    call: FunctionCall
    pieces: tuple[Piece | None, Piece | None]
    output: tuple[int, ...]
    edge: GradientEdge
    via: tuple[Node | None, Node | None]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters, the weight's first."""
        return tuple(piece.name for piece in self.pieces if piece is not None)


@dataclass(frozen=True, slots=True)
class Observation:
    """The calls of one forward pass in order, and where each holds its examples, or why it has no place."""

    calls: Sequence[Seen]
    places: Sequence[Place | str]


def every_output(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return, for each example [b], a number that every entry of its outputs moves, each by another weight."""
    flat = outputs.flatten(1)
    places = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    return (flat * torch.cos(1.7 * places).to(flat.dtype)).sum(1)


def observe(module: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor], chosen: Sequence[str]) -> Observation | None:
    """Return what the calls of a float64 module do; None where they depend on the size of the batch."""
    watch = _Watch(module, batch, chosen)
    shared: dict[int, Place] = {}
    hopeless: dict[int, str] = {}
    while True:
        seen, outputs = watch.run(len(batch[0]), shared)
        fewer, _ = watch.run(len(batch[0]) - 1, shared)
        if [(s.call.function, s.pieces) for s in seen] != [(s.call.function, s.pieces) for s in fewer]:
            return None
        found = [_places(a, b, len(batch[0])) for a, b in zip(seen, fewer, strict=True)]
        alone = [i for i, places in enumerate(found) if places is None and i not in shared and i not in hopeless]
        if not alone:
            break
        place = watch.copies_for(alone[0], shared, seen[alone[0]], outputs)
        if place is None:
            hopeless[alone[0]] = f"the batch is not an axis of its {seen[alone[0]].call.function} input"
        else:
            shared[alone[0]] = place
    edges = [s.edge for s in seen]
    supports = [_supports(goal(outputs, batch[1]), edges) for goal in (loss, every_output)]
    places: list[Place | str] = []
    for i, s in enumerate(seen):
        candidates = [shared[i]] if i in shared else found[i] or []
        columns = [[support[i] for support in rows] for rows in supports]
        fits = [place for place in candidates if all(_agrees(place, column) for column in columns)]
        if len(fits) > 1 and not any(delta is not None and delta.any() for column in columns for delta in column):
            fits, why = [], f"nothing in the first examples tells which is which in its {s.call.function} input"
        else:
            why = hopeless.get(i, f"the examples of the batch are not apart in its {s.call.function} input")
        places.append(fits[0] if fits else why)
    return Observation(seen, places)


class _Watch:
    """Runs the model on the first examples and writes its calls down."""

    def __init__(self, module: nn.Module, batch: tuple[Tensor, Tensor], chosen: Sequence[str]) -> None:
        self._module = module
        self._batch = batch
        tensors = (*module.named_parameters(), *module.named_buffers())
        self._state = {name: tensor.detach().requires_grad_(name in chosen) for name, tensor in tensors}
        self._names = ParameterNames({name: self._state[name] for name in chosen})

    def run(self, b: int, shared: Mapping[int, Place]) -> tuple[list[Seen], Tensor]:
        """Return the calls and the outputs; the outputs of calls that examples share are copied for each."""
        notes = _Notes(self._names, b, shared)
        with torch.enable_grad(), watching(notes):
            outputs: Tensor = functional_call(self._module, self._state, (self._batch[0][:b],))
        return notes.seen, outputs

    def copies_for(self, i: int, shared: Mapping[int, Place], seen: Seen, outputs: Tensor) -> Place | None:
        """Return the way of copying call i's output for every example that leaves the model's outputs as they are."""
        for place in shared_places(seen.output):
            try:
                _, found = self.run(len(self._batch[0]), {**shared, i: place})
            except TRIAL_ERRORS:
                continue  # the model does not take an output of that shape: another way, or none
            if found.shape == outputs.shape and torch.allclose(found, outputs, rtol=SAME, atol=SAME):
                return place
        return None


class _Notes:
    def __init__(self, names: ParameterNames, b: int, shared: Mapping[int, Place]) -> None:
        self._names = names
        self._b = b
        self._shared = shared
        self.seen: list[Seen] = []

    def record(self, call: FunctionCall, output: Tensor) -> Tensor:
        pieces = (self._names.of(call.weight), self._names.of(call.bias))
        if pieces == (None, None):
            return output
        shape = tuple(output.shape)
        place = self._shared.get(len(self.seen))
        if place is not None:
            output = place.spread(output, self._b)
        via = (_cut_by(call.weight, pieces[0]), _cut_by(call.bias, pieces[1]))
        self.seen.append(Seen(call, pieces, shape, get_gradient_edge(output), via))
        return output


def _cut_by(tensor: Tensor | None, piece: Piece | None) -> Node | None:
    return None if tensor is None or piece is None or piece.rows is None else tensor.grad_fn


def _places(seen: Seen, fewer: Seen, b: int) -> Sequence[Place] | None:
    """Return the places that explain the shapes of a call; None where it has no batch at all."""
    if seen.output == fewer.output and seen.call.x.shape == fewer.call.x.shape:
        return None
    places = batched_places(seen.output, fewer.output, b)
    inputs = batched_places(tuple(seen.call.x.shape), tuple(fewer.call.x.shape), b)
    return [place for place in places if place in inputs]


def _supports(losses: Tensor, edges: Sequence[GradientEdge]) -> list[list[Tensor | None]]:
    """Return, for each example, where the outputs of the calls move its loss: gradients, or None for nowhere."""
    if not edges:
        return [[] for _ in losses]
    return [list(torch.autograd.grad(value, edges, retain_graph=True, allow_unused=True)) for value in losses]


def _agrees(place: Place, deltas: Sequence[Tensor | None]) -> bool:
    """Whether the loss of every example depends on no other example's part of the output."""
    b = len(deltas)
    for i, delta in enumerate(deltas):
        if delta is not None:
            parts = place.of_delta(delta, b).reshape(b, -1)
            if parts[torch.arange(b) != i].any():
                return False
    return True
