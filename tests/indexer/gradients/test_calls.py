"""What `watching` sees, from which thread, and that torch's functions are its own again afterwards."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.gradients.calls import watching
from indexer.gradients.functions import FunctionCall
from indexer.gradients.rules import Linear

LINEAR, CONV2D = F.linear, F.conv2d


class Notes:
    """A recorder that writes every call down and lets the output pass."""

    def __init__(self) -> None:
        self.calls: list[FunctionCall] = []

    def record(self, call: FunctionCall, output: Tensor) -> Tensor:
        self.calls.append(call)
        return output


@pytest.fixture(autouse=True)
def torch_is_left_alone() -> Any:
    """After every test here torch's functions are the originals."""
    yield
    assert F.linear is LINEAR
    assert F.conv2d is CONV2D


def test_calls_are_recorded_with_the_very_tensors_of_the_call() -> None:
    layer, x = nn.Linear(3, 2), torch.ones(4, 3)
    with watching(notes := Notes()):
        layer(x)
        F.linear(x, weight=layer.weight)
    first, second = notes.calls
    assert first.function == second.function == "linear"
    assert first.x is x and first.weight is layer.weight and first.bias is layer.bias
    assert second.weight is layer.weight and second.bias is None
    assert first.unsupported is None and first.rule == Linear()


def test_what_the_recorder_returns_goes_on() -> None:
    class Doubling(Notes):
        def record(self, call: FunctionCall, output: Tensor) -> Tensor:
            return output * 2

    layer, x = nn.Linear(3, 2), torch.ones(4, 3)
    expected = layer(x) * 2
    with watching(Doubling()):
        assert torch.equal(layer(x), expected)


def test_calls_without_gradient_are_not_recorded() -> None:
    layer, x = nn.Linear(3, 2), torch.ones(4, 3)
    with watching(notes := Notes()):
        with torch.no_grad():
            layer(x)
        layer(x)
    assert len(notes.calls) == 1


def test_the_packed_projection_of_attention_is_seen() -> None:
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    x = torch.ones(2, 3, 4)
    with watching(notes := Notes()):
        attention(x, x, x, need_weights=False)
    assert [call.weight is weight for call, weight in zip(notes.calls, _weights(attention), strict=True)] == [True] * 2


def _weights(attention: nn.MultiheadAttention) -> list[Tensor]:
    return [attention.in_proj_weight, attention.out_proj.weight]


def test_another_thread_is_not_recorded() -> None:
    layer, x = nn.Linear(3, 2), torch.ones(4, 3)
    outputs: list[Tensor] = []
    with watching(notes := Notes()):
        other = threading.Thread(target=lambda: outputs.append(layer(x)))
        other.start()
        other.join()
        assert notes.calls == []
        layer(x)
    assert len(notes.calls) == 1
    assert torch.equal(outputs[0], layer(x))


def test_the_functions_stay_wrapped_until_the_last_watcher_leaves() -> None:
    layer, x = nn.Linear(3, 2), torch.ones(4, 3)
    entered, leave = threading.Event(), threading.Event()
    elsewhere = Notes()

    def watch_elsewhere() -> None:
        with watching(elsewhere):
            entered.set()
            leave.wait(10)
            layer(x)

    other = threading.Thread(target=watch_elsewhere)
    with watching(here := Notes()):
        other.start()
        assert entered.wait(10)
        layer(x)
    assert F.linear is not LINEAR
    leave.set()
    other.join()
    assert (len(here.calls), len(elsewhere.calls)) == (1, 1)


def test_an_inner_watcher_takes_over_and_hands_back() -> None:
    layer, x = nn.Linear(3, 2), torch.ones(4, 3)
    with watching(outer := Notes()):
        layer(x)
        with watching(inner := Notes()):
            layer(x)
        layer(x)
    assert (len(outer.calls), len(inner.calls)) == (2, 1)


def test_torch_is_restored_after_an_exception() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), watching(Notes()):
        nn.Linear(3, 2)(torch.ones(4, 5))
    assert F.linear is LINEAR
    with watching(notes := Notes()):
        nn.Linear(3, 2)(torch.ones(4, 3))
    assert len(notes.calls) == 1


def test_wrappers_keep_name_and_documentation() -> None:
    with watching(Notes()):
        assert F.linear.__name__ == LINEAR.__name__
        assert F.conv2d.__doc__ == CONV2D.__doc__
