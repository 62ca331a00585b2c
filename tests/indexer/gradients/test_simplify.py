"""Simplified graphs: fewer operations, the same bits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from indexer.gradients.simplify import simplify


def views(x: Tensor) -> Tensor:
    same = x.view(4, 6).view(24).view(2, 12).expand(2, 12).permute(0, 1)[0:2]
    return same.detach().reshape(3, 8) * 2


def tap(x: Tensor) -> Tensor:
    return (x + torch.zeros(4, 6)) * 2


def unused(x: Tensor) -> Tensor:
    x.sum()
    return x * 2


def transposed(x: Tensor) -> Tensor:
    return (x.t().view(6, 2, 2) * 2).transpose(1, 2)


def larger(x: Tensor) -> Tensor:
    return x[:1] + torch.zeros(4, 6)


def in_place(x: Tensor) -> Tensor:
    copied = x + torch.zeros(4, 6)
    return copied.mul_(2) + x


@pytest.mark.parametrize(
    ("function", "left"),
    [
        pytest.param(views, ["view", "mul"], id="views"),
        pytest.param(tap, ["mul"], id="tap"),
        pytest.param(unused, ["mul"], id="unused"),
        pytest.param(transposed, ["t", "view", "mul", "transpose"], id="transposed"),
        pytest.param(larger, ["slice", "zeros", "add"], id="larger"),
        pytest.param(in_place, ["zeros", "add", "mul_", "add"], id="in place"),
    ],
)
def test_what_changes_nothing_goes_and_results_stay(function: Callable[[Tensor], Tensor], left: list[str]) -> None:
    x = torch.randn(4, 6)
    graph = make_fx(function)(x)
    simplify(graph)
    operations = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert [str(operation).split(".")[1] for operation in operations] == left
    other = torch.randn(4, 6)
    kept = other.clone()
    assert torch.equal(graph(other), function(kept))
    assert torch.equal(other, kept)


def test_what_tensors_looked_like_is_forgotten() -> None:
    graph = make_fx(views)(torch.randn(4, 6))
    simplify(graph)
    assert not any(node.meta for node in graph.graph.nodes)
