"""The path of copies: a parameter that enters by broadcasting is copied for each example, and has a gradient for each.

Tables of positions, class tokens and scales are added or multiplied to activations; widened from [1, …] to [b, …] they
give per-example gradients in the same backward pass. Whether a model takes a wider parameter is tried, with care:
fused kernels do not check the shapes that they are given, and read or write past their tensors. So every operation is
watched while it is tried: what has another shape than without copies may only enter operations that check shapes
themselves, in float64 and in the float32 of a build, whose kernels differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from indexer.gradients.calls import watching
from indexer.gradients.capture import State, copies_of, eager, whole
from indexer.gradients.functions import FunctionCall
from indexer.gradients.general import by_loop
from indexer.gradients.layout import Block, Layout
from indexer.gradients.observe import TRIAL_ERRORS, every_output
from indexer.gradients.place import Shape
from indexer.task import Loss

Batch = tuple[Tensor, Tensor]

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}  # relative: rounding is 1e-13 and 1e-6, another meaning is 1e-1
ZERO = 1e-12  # below this a gradient of float64 is rounding

# beside entrywise operations, those that check shapes: views, joins, and matrix products
_CHECKED = frozenset(
    "expand view _unsafe_view reshape unsqueeze squeeze transpose t permute slice select cat stack clone detach alias "
    "_to_copy repeat mm bmm addmm baddbmm sum mean".split()
)


def copies_path(module: nn.Module, state: State, loss: Loss, batch: Batch, block: Block) -> Block | None:
    """Return the block on the path of copies, or None where the model does not take them, or nothing tells; float64."""
    if _is_recurrent(module, block.name):
        return None
    goals = (loss, every_output)
    expected = [by_loop(module, state, goal, batch, [block.name])[block.name] for goal in goals]
    if not any(gradient.any() for gradient in expected):
        return None
    for shape in _shapes(state[block.name]):
        tried = replace(block, path="copies", note="one copy for every example", copied=shape)
        if all(
            _works(module, _cast(state, dtype), goal, batch, tried, right)
            for dtype in TOLERANCES
            for goal, right in zip(goals, expected, strict=True)
        ):
            return tried
    return None


def _is_recurrent(module: nn.Module, name: str) -> bool:
    """Whether a recurrent layer owns the parameter: its kernels are others on every device."""
    owner = module.get_submodule(name.rpartition(".")[0])
    return isinstance(owner, nn.RNNBase | nn.RNNCellBase)


def _shapes(parameter: Tensor) -> list[Shape]:
    """Return shapes whose first axis can be widened to the batch: the parameter's own, or axes of size 1 before it."""
    shape = tuple(parameter.shape)
    own = [shape] if shape and shape[0] == 1 else []
    return own + [(1, *(1,) * more, *shape) for more in range(4)]


def _works(module: nn.Module, state: State, loss: Loss, batch: Batch, block: Block, expected: Tensor) -> bool:
    dtype = state[block.name].dtype
    inputs, targets = (part.to(dtype) if part.is_floating_point() else part for part in batch)
    try:
        usual, plain = _Operations(()), state[block.name].detach().requires_grad_()
        _forward(module, {**state, block.name: plain}, loss, (inputs, targets), usual)
        copies = copies_of(state[block.name], block, len(inputs)).requires_grad_()
        _forward(module, {**state, block.name: copies}, loss, (inputs, targets), _Operations(usual.seen, copies))
        found = eager(module, state, loss, (inputs, targets), Layout((block,), ()), whole).kept[block.name].dense()
    except (_UncheckedError, *TRIAL_ERRORS):
        return False  # the model does not take a parameter of that shape
    right = expected.reshape(found.shape)
    return bool((found - right).norm() <= TOLERANCES[dtype] * max(right.norm().item(), ZERO))


def _forward(module: nn.Module, state: State, loss: Loss, batch: Batch, operations: "_Operations") -> None:
    with torch.enable_grad(), watching(_Silent()), operations:
        loss(functional_call(module, dict(state), (batch[0],)), batch[1])


def _cast(state: State, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


class _UncheckedError(Exception):
    """A tensor of another shape was about to enter an operation that may not check it."""


class _Silent:
    """Watches as capture does, so that the same kernels run, and changes nothing."""

    def record(self, call: FunctionCall, output: Tensor) -> Tensor:
        return output


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes operations down with the shapes of their results; with some to compare with, follows what differs.

    usual: the operations without copies; copies: the one tensor that differs at the start.
    """

    def __init__(self, usual: Sequence[tuple[Any, list[Shape]]], copies: Tensor | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[Any, list[Shape]]] = []
        self._usual = usual
        self._other = {} if copies is None else {id(copies): copies}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Refuse an unchecked operation before it runs, and follow the results of the others.

        Raises:
            _UncheckedError: in place of running it.
        """
        touched = any(id(leaf) in self._other for leaf in tree_leaves((args, kwargs or {})))
        name = func.overloadpacket.__name__
        if touched and torch.Tag.pointwise not in func.tags and name not in _CHECKED:
            raise _UncheckedError(name)
        found = func(*args, **(kwargs or {}))
        results = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        place = len(self.seen)
        self.seen.append((func, [tuple(result.shape) for result in results]))
        if touched:
            if place >= len(self._usual) or self._usual[place][0] is not func:
                raise _UncheckedError(name)
            for result, shape in zip(results, self._usual[place][1], strict=True):
                if tuple(result.shape) != shape:
                    self._other[id(result)] = result
        return found
