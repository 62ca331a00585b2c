"""Takes out of a traced graph the operations that change nothing: on small models each costs as much as arithmetic.

* What nothing uses.
* A view that is its own input (same shape, strides and offset), and all views but the last of a chain.
* A product with 1, which the bias of a linear layer gets.
* The zero that was added to an output so that its gradient could be asked for: see `indexer.gradients.capture.tapped`.

Results keep every bit, but for the sign of a zero that had a zero added. With an operation in place nothing but what is
unused goes: a sum is a copy, and what is a copy matters then.
"""

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

_aten = torch.ops.aten
_VIEW = (_aten.view.default, _aten._unsafe_view.default)
_VIEWS = (
    *(*_VIEW, _aten.expand.default, _aten.permute.default, _aten.transpose.int, _aten.slice.Tensor),
    *(_aten.alias.default, _aten.detach.default),
)
_ZEROS = (_aten.zeros.default, _aten.zeros_like.default, _aten.new_zeros.default)


def simplify(graph: GraphModule) -> None:
    """Change a graph that ``make_fx`` made, and forget what its tensors looked like."""
    graph.graph.eliminate_dead_code()
    if not any(map(_changes_in_place, graph.graph.nodes)):
        for node in graph.graph.nodes:
            _skip_views(node)
            if _is_its_input(node):
                node.replace_all_uses_with(node.args[0])
        graph.graph.eliminate_dead_code()
    for node in graph.graph.nodes:
        node.meta.clear()
    graph.recompile()


def _changes_in_place(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _skip_views(node: Node) -> None:
    """Let a view look past the views below it: of a contiguous tensor there is one of every shape."""
    while node.target in _VIEW and isinstance(node.args[0], Node) and node.args[0].target in _VIEW:
        below = node.args[0].args[0]
        if not (isinstance(below, Node) and below.meta["val"].is_contiguous()):
            return
        node.update_arg(0, below)


def _is_its_input(node: Node) -> bool:
    if node.target in _VIEWS:
        return _alike(node, node.args[0])
    if node.target == _aten.mul.Scalar and not node.kwargs:
        return bool(node.args[1] == 1) and _alike(node, node.args[0])
    if node.target == _aten.add.Tensor and not node.kwargs:
        added = node.args[1]
        return isinstance(added, Node) and added.target in _ZEROS and _alike(node, node.args[0])
    return False


def _alike(node: Node, other: object) -> bool:
    if not isinstance(other, Node):
        return False
    here, there = node.meta["val"], other.meta["val"]
    return isinstance(there, Tensor) and _form(here) == _form(there)


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype
