"""Finding a model's layout: which parameters have a rule, and which must take a general path, and why.

A few real examples are sent through the model in float64. A parameter is on the factor path when every call that
uses it has a rule and a batch axis in front, when the graph of the loss uses it no more often than those calls do,
and when its factors add up to the gradient of the batch; otherwise something else reads it, and it goes to
``vmap(grad)``, or, where ``vmap`` cannot batch the model, to the loop.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from indexer.errors import ProbeError
from indexer.gradients.calls import watching
from indexer.gradients.capture import State, eager
from indexer.gradients.functions import FunctionCall
from indexer.gradients.general import by_vmap
from indexer.gradients.layout import Block, CallSite, Layout
from indexer.task import Loss

_ELSEWHERE = "also used outside the functions that have a rule"
ZERO = 1e-12  # below this a gradient of float64 is rounding
SUM_TOLERANCE = 1e-9  # float64 sums over a few examples; a call that was not seen is off by its whole share


def trace(module: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor]) -> Layout:
    """Return the layout of a float64 module in ``eval()`` mode, from a batch of at least three examples.

    Raises:
        ProbeError: no parameter is trainable, or the loss does not depend on one that is.
    """
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    trainable = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    if not trainable:
        raise ProbeError("the model has no trainable parameter; unfreeze those whose influence is asked for")
    whole, uses = _batch_gradient(module, loss, batch, trainable)
    calls = _observe(module, state, trainable, batch[0])
    refused = _refused(calls, _observe(module, state, trainable, batch[0][:-1]), len(batch[0]))
    seen = Counter(name for call in calls for name in call.parameters)
    refused |= {name: _ELSEWHERE for name in seen if uses[name] > seen[name]}
    layout = _layout(state, trainable, calls, refused)
    captured = eager(module, state, loss, batch, layout)
    for block in layout.on("factors"):
        found = captured.gradients[block.name].dense().sum(0)
        expected = _as_matrix(block, {name: whole[name] for name in block.parameters})
        if (found - expected).norm() > SUM_TOLERANCE * max(expected.norm().item(), ZERO):
            refused |= dict.fromkeys(block.parameters, _ELSEWHERE)
    layout = _layout(state, trainable, calls, refused)
    return _choose_general_path(module, state, loss, batch, layout)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A call with the names of its trainable parameters."""

    call: FunctionCall
    weight: str | None
    bias: str | None
    output: tuple[int, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(name for name in (self.weight, self.bias) if name is not None)


class _Observer:
    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self.seen: list[_Seen] = []

    def record(self, call: FunctionCall, output: Tensor) -> Tensor:
        weight = self._names.get(id(call.weight))
        bias = self._names.get(id(call.bias))
        if weight is not None or bias is not None:
            self.seen.append(_Seen(call, weight, bias, tuple(output.shape)))
        return output


def _observe(module: nn.Module, state: State, trainable: Sequence[str], inputs: Tensor) -> list[_Seen]:
    tensors = {name: tensor.detach().requires_grad_(name in trainable) for name, tensor in state.items()}
    observer = _Observer({id(tensors[name]): name for name in trainable})
    with torch.enable_grad(), watching(observer):
        functional_call(module, tensors, (inputs,))
    return observer.seen


def _batch_gradient(
    module: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor], trainable: Sequence[str]
) -> tuple[dict[str, Tensor], Counter[str]]:
    """Return the gradient of the batch by parameter, and how often the graph uses each, whatever the values.

    Raises:
        ProbeError: the loss does not depend on a trainable parameter.
    """
    parameters = dict(module.named_parameters())
    with torch.enable_grad():
        value = loss(module(batch[0]), batch[1]).sum()
    gradients = torch.autograd.grad(value, [parameters[name] for name in trainable], allow_unused=True)
    unseen = [name for name, gradient in zip(trainable, gradients, strict=True) if gradient is None]
    if unseen:
        raise ProbeError(
            f"the loss does not depend on the trainable parameter {unseen[0]!r}; freeze it with requires_grad_(False) "
            "if it is not used, or do not detach what is computed from it"
        )
    found = {name: gradient for name, gradient in zip(trainable, gradients, strict=True) if gradient is not None}
    edges = _edges(value)
    return found, Counter({name: edges[id(parameters[name])] for name in trainable})


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


def _refused(calls: Sequence[_Seen], fewer: Sequence[_Seen], b: int) -> dict[str, str]:
    """Return {parameter: reason} for the parameters that a call without a rule uses."""
    refused: dict[str, str] = {}
    if [(seen.call.function, seen.parameters) for seen in calls] != [(s.call.function, s.parameters) for s in fewer]:
        return {name: "its calls depend on the batch" for seen in (*calls, *fewer) for name in seen.parameters}
    for seen, other in zip(calls, fewer, strict=True):
        reason = seen.call.unsupported
        if (len(seen.call.x), seen.output[0], len(other.call.x), other.output[0]) != (b, b, b - 1, b - 1):
            reason = reason or f"the batch is not the first axis of its {seen.call.function} input"
        if reason is not None:
            refused |= dict.fromkeys(seen.parameters, reason)
    return refused


def _layout(state: State, trainable: Sequence[str], calls: Sequence[_Seen], refused: Mapping[str, str]) -> Layout:
    home = _home(calls, refused)
    sites = tuple(
        CallSite(
            function=seen.call.function,
            names=(seen.weight if seen.weight in home else None, seen.bias if seen.bias in home else None),
            weight=home.get(seen.weight or ""),
            bias=home.get(seen.bias or ""),
            rule=seen.call.rule,
            output=seen.output[1:],
        )
        for seen in calls
        if seen.call.rule is not None and any(name in home for name in seen.parameters)
    )
    functions = {name: seen.call.function for seen in calls for name in seen.parameters}
    members: dict[str, list[str]] = {}
    for name in trainable:
        members.setdefault(home.get(name, name), []).append(name)
    blocks = []
    for name, parameters in members.items():
        parameters.sort(key=lambda parameter: parameter != name)  # the weight first, its bias as last column
        shape = _matrix_shape(state, parameters)
        if name in home:
            blocks.append(Block(name, tuple(parameters), shape, "factors", functions[name]))
        else:
            blocks.append(Block(name, tuple(parameters), shape, "vmap", refused.get(name, "no rule for what uses it")))
    return Layout(tuple(blocks), sites)


def _home(calls: Sequence[_Seen], refused: Mapping[str, str]) -> dict[str, str]:
    """Return {parameter: block}: a bias lives with its weight where they are always and only used together."""
    partners: dict[str, set[str | None]] = {}
    for seen in calls:
        if seen.weight is not None:
            partners.setdefault(seen.weight, set()).add(seen.bias)
        if seen.bias is not None:
            partners.setdefault(seen.bias, set()).add(seen.weight)
    usable = [name for name in partners if name not in refused]
    home = {name: name for name in usable}
    for seen in calls:
        rule, weight, bias = seen.call.rule, seen.weight, seen.bias
        if weight in home and bias in home and weight is not None and bias is not None and rule is not None:
            if rule.folds and partners[weight] == {bias} and partners[bias] == {weight}:
                home[bias] = weight
    return home


def _matrix_shape(state: State, parameters: Sequence[str]) -> tuple[int, int]:
    first = state[parameters[0]]
    rows = first.shape[0] if first.ndim else 1
    return rows, sum(state[name].numel() // rows for name in parameters)


def _as_matrix(block: Block, gradients: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([gradients[name].reshape(block.shape[0], -1) for name in block.parameters], dim=1)


def _choose_general_path(
    module: nn.Module, state: State, loss: Loss, batch: tuple[Tensor, Tensor], layout: Layout
) -> Layout:
    """Send the blocks without a rule to the loop where ``vmap`` refuses the model."""
    names = [block.name for block in layout.on("vmap")]
    if not names:
        return layout
    try:
        by_vmap(module, {name: tensor.detach() for name, tensor in state.items()}, loss, batch, names)
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as exc:
        why = str(exc).split("\n", 1)[0][:120]
        blocks = [
            replace(block, path="loop", note=f"{block.note}; vmap: {why}") if block.path == "vmap" else block
            for block in layout.blocks
        ]
        return replace(layout, blocks=tuple(blocks))
    return layout
