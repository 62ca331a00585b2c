"""Finding a model's layout: which parameters have a rule, and which must take a general path, and why.

A few real examples are sent through the model in float64. A parameter is on the factor path when every call that
uses it has a rule and a place for its examples, when the graph of the loss uses it no more often than those calls do,
and when its factors add up to the gradient of the batch; otherwise something else reads it. Then it is tried as a copy
for every example (tables and scales that are added or multiplied by broadcasting), and what is left goes to
``vmap(grad)``, or, where ``vmap`` cannot batch the model, to the loop.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from indexer.errors import ProbeError
from indexer.gradients.capture import State, eager, whole
from indexer.gradients.copies import copies_path
from indexer.gradients.general import by_vmap
from indexer.gradients.layout import Block, CallSite, Layout
from indexer.gradients.observe import TRIAL_ERRORS, Observation, Seen, every_output, observe
from indexer.gradients.place import Batched, Place
from indexer.task import Loss

_ELSEWHERE = "also used outside the functions that have a rule"
_NO_RULE = "no rule for what uses it"
ZERO = 1e-12  # below this a gradient of float64 is rounding
SUM_TOLERANCE = 1e-9  # float64 sums over a few examples; a call that was not seen is off by its whole share

Batch = tuple[Tensor, Tensor]


def trace(module: nn.Module, loss: Loss, batch: Batch, chosen: Sequence[str] | None = None) -> Layout:
    """Return the layout of a float64 module in ``eval()`` mode, from a batch of at least three examples.

    chosen: names of the parameters whose gradient is wanted; None: all that are trainable.

    Raises:
        ProbeError: no parameter is chosen, the loss does not depend on one that is, or its gradient is not finite.
    """
    everything = [name for name, _ in module.named_parameters()]
    trainable = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    names = trainable if chosen is None else [name for name in trainable if name in set(chosen)]
    if not names:
        raise ProbeError("the model has no trainable parameter; unfreeze those whose influence is asked for")
    state = {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    uses = _uses(module, loss, batch, names)
    calls, refused = _usable(observe(module, loss, batch, names), uses)
    layout = _layout(state, names, calls, refused)
    for goal in (loss, every_output):
        expected = _batch_gradient(module, state, goal, batch, names)
        captured = eager(module, state, goal, batch, layout, whole)
        for block in layout.on("factors"):
            found = captured.kept[block.name].dense().sum(0)
            right = _as_matrix(block, {name: expected[name] for name in block.parameters})
            if not (found - right).norm() <= SUM_TOLERANCE * max(right.norm().item(), ZERO):
                refused |= dict.fromkeys(block.parameters, _ELSEWHERE)
    layout = _layout(state, names, calls, refused)
    layout = replace(layout, left_out=tuple(name for name in everything if name not in set(names)))
    return _choose_general_path(module, state, loss, batch, _with_copies(module, state, loss, batch, layout))


def _uses(module: nn.Module, loss: Loss, batch: Batch, chosen: Sequence[str]) -> Counter[str]:
    """Return how often the graph of the loss uses each parameter, whatever the values.

    Raises:
        ProbeError: the loss does not depend on a chosen parameter, or its gradient is not finite.
    """
    parameters = dict(module.named_parameters())
    with torch.enable_grad():
        value = loss(module(batch[0]), batch[1]).sum()
    asked = [parameters[name] for name in chosen]
    gradients = torch.autograd.grad(value, asked, allow_unused=True) if value.requires_grad else [None] * len(asked)
    unseen = [name for name, gradient in zip(chosen, gradients, strict=True) if gradient is None]
    if unseen:
        named = ", ".join(map(repr, unseen[:8])) + (", …" if len(unseen) > 8 else "")
        raise ProbeError(
            f"the loss does not depend on the trainable parameter{'s' if len(unseen) > 1 else ''} {named}; freeze what "
            "is not used with requires_grad_(False) or leave it out (--parameters '!pooler.*'), or do not detach what "
            "is computed from it"
        )
    for name, gradient in zip(chosen, gradients, strict=True):
        if gradient is not None and not torch.isfinite(gradient).all():
            raise ProbeError(
                f"the gradient of {name!r} is NaN or infinite at a probe example; check the checkpoint, the data and "
                "what the loss does at its edges"
            )
    edges = _edges(value)
    return Counter({name: edges[id(parameters[name])] for name in chosen})


def _batch_gradient(
    module: nn.Module, state: State, goal: Loss, batch: Batch, chosen: Sequence[str]
) -> dict[str, Tensor]:
    """Return the gradient of the batch by parameter, zero where the goal does not depend on it."""
    tracked = {name: tensor.detach().requires_grad_(name in set(chosen)) for name, tensor in state.items()}
    with torch.enable_grad():
        value = goal(functional_call(module, tracked, (batch[0],)), batch[1]).sum()
    asked = [tracked[name] for name in chosen]
    return dict(zip(chosen, torch.autograd.grad(value, asked, materialize_grads=True), strict=True))


def _edges(value: Tensor) -> Counter[int]:
    """Return {id of a leaf: edges of the autograd graph that end in it}."""
    count: Counter[int] = Counter()
    seen, waiting = set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            if following is not None and hasattr(following, "variable"):
                count[id(following.variable)] += 1
            else:
                waiting.append(following)
    return count


def _usable(
    observation: Observation | None, uses: Mapping[str, int]
) -> tuple[list[tuple[Seen, Place | str]], dict[str, str]]:
    """Return the calls with their places, and {parameter: reason} for the parameters that cannot have a rule."""
    if observation is None:
        return [], dict.fromkeys(uses, "its calls depend on the batch")
    refused: dict[str, str] = {}
    for seen, place in zip(observation.calls, observation.places, strict=True):
        reason = seen.call.unsupported or (place if isinstance(place, str) else None)
        if isinstance(place, Batched) and place.axis != 0 and seen.call.rule is not None and not seen.call.rule.leading:
            reason = f"the batch is not the first axis of its {seen.call.function} input"
        if reason is not None:
            refused |= {name: reason for name in seen.parameters if name not in refused}
    known: dict[str, set[object]] = {}
    for number, seen in enumerate(observation.calls):
        for piece, via in zip(seen.pieces, seen.via, strict=True):
            if piece is not None:
                known.setdefault(piece.name, set()).add(number if via is None else via)
    refused |= {name: _ELSEWHERE for name, edges in known.items() if uses[name] > len(edges)}
    return list(zip(observation.calls, observation.places, strict=True)), refused


def _layout(
    state: State, names: Sequence[str], calls: Sequence[tuple[Seen, Place | str]], refused: Mapping[str, str]
) -> Layout:
    home = _home([seen for seen, _ in calls], refused)
    sites = tuple(_site(seen, place, home) for seen, place in calls if any(name in home for name in seen.parameters))
    functions = {name: seen.call.function for seen, _ in calls for name in seen.parameters}
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(home.get(name, name), []).append(name)
    blocks = []
    for name, parameters in members.items():
        parameters.sort(key=lambda parameter: parameter != name)  # the weight first, its bias as last column
        shape = _matrix_shape(state, parameters)
        if name in home:
            blocks.append(Block(name, tuple(parameters), shape, "factors", functions[name]))
        else:
            blocks.append(Block(name, tuple(parameters), shape, "vmap", refused.get(name, _NO_RULE)))
    return Layout(tuple(blocks), sites)


def _site(seen: Seen, place: Place | str, home: Mapping[str, str]) -> CallSite:
    assert seen.call.rule is not None and isinstance(place, Place), seen
    weight, bias = (piece if piece is not None and piece.name in home else None for piece in seen.pieces)
    return CallSite(
        function=seen.call.function,
        pieces=(weight, bias),
        weight=None if weight is None else home[weight.name],
        bias=None if bias is None else home[bias.name],
        rule=seen.call.rule,
        place=place,
        output=_unit(seen.output, place),
    )


def _unit(output: tuple[int, ...], place: Place) -> tuple[int, ...]:
    """Return the shape of an output for one example."""
    if not isinstance(place, Batched):
        return output
    return (*output[: place.axis], place.times, *output[place.axis + 1 :])


def _home(calls: Sequence[Seen], refused: Mapping[str, str]) -> dict[str, str]:
    """Return {parameter: block}: a bias lives with its weight where they are always and only used together."""
    partners: dict[str, set[tuple[str | None, bool]]] = {}
    for seen in calls:
        weight, bias = seen.pieces
        together = weight is not None and bias is not None and weight.rows == bias.rows
        if weight is not None:
            partners.setdefault(weight.name, set()).add((None if bias is None else bias.name, together))
        if bias is not None:
            partners.setdefault(bias.name, set()).add((None if weight is None else weight.name, together))
    home = {name: name for name in partners if name not in refused}
    for seen in calls:
        weight, bias, rule = *seen.pieces, seen.call.rule
        if weight is not None and bias is not None and rule is not None and {weight.name, bias.name} <= home.keys():
            if (
                rule.folds
                and partners[weight.name] == {(bias.name, True)}
                and partners[bias.name] == {(weight.name, True)}
            ):
                home[bias.name] = weight.name
    return home


def _matrix_shape(state: State, parameters: Sequence[str]) -> tuple[int, int]:
    first = state[parameters[0]]
    rows = first.shape[0] if first.ndim else 1
    return rows, sum(state[name].numel() // rows for name in parameters)


def _as_matrix(block: Block, gradients: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([gradients[name].reshape(block.shape[0], -1) for name in block.parameters], dim=1)


def _with_copies(module: nn.Module, state: State, loss: Loss, batch: Batch, layout: Layout) -> Layout:
    """Give the parameters without a rule a copy for every example, where the model takes one and says the same."""
    blocks = []
    for block in layout.blocks:
        tried = block.path == "vmap" and block.note == _NO_RULE
        found = copies_path(module, state, loss, batch, block) if tried else None
        blocks.append(found or block)
    return replace(layout, blocks=tuple(blocks))


def _choose_general_path(module: nn.Module, state: State, loss: Loss, batch: Batch, layout: Layout) -> Layout:
    """Send the blocks without a rule to the loop where ``vmap`` refuses the model."""
    names = [block.name for block in layout.on("vmap")]
    if not names:
        return layout
    try:
        by_vmap(module, state, loss, batch, names)
    except TRIAL_ERRORS as exc:
        why = str(exc).split("\n", 1)[0][:120]
        blocks = [
            replace(block, path="loop", note=f"{block.note}; vmap: {why}") if block.path == "vmap" else block
            for block in layout.blocks
        ]
        return replace(layout, blocks=tuple(blocks))
    return layout
