"""What is recorded of a model and its optimizer, and what is refused before the first step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from indexer.errors import RecordError
from indexer.record.subject import Subject
from tests.indexer.record.training import network, two_groups


def subject(
    optimizer: Callable[[nn.Sequential], Optimizer] | None = None, **settings: Any
) -> tuple[Subject, nn.Sequential]:
    net = network()
    settings = {"steps_per_epoch": 4, "optimizer_state": False, **settings}
    return Subject(net, optimizer(net) if optimizer else two_groups(net), **settings), net


def test_a_run_as_it_is_listed() -> None:
    about = subject()[0].about()
    assert about["optimizer"]["momentum"] == 0.9
    assert about["steps_per_epoch"] == 4
    assert about["parameter_groups"] == [["2.weight", "2.bias"], ["0.weight", "0.bias"]]


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (lambda net: SGD(net.parameters(), lr=0.1, momentum=np.float64(0.9)), {"momentum": 0.9}),
        (lambda net: AdamW(net.parameters(), lr=0.1, weight_decay=np.float64(0.01)), {"weight_decay": 0.01}),
        (
            lambda net: AdamW(net.parameters(), lr=0.1, betas=(torch.tensor(0.5), torch.tensor(0.25))),
            {"betas": [0.5, 0.25]},
        ),
    ],
)
def test_numbers_of_numpy_and_torch_can_be_listed(
    optimizer: Callable[[nn.Sequential], Optimizer], expected: Any
) -> None:
    found = orjson.loads(orjson.dumps(subject(optimizer)[0].about()["optimizer"]))
    assert found.items() >= expected.items()


def test_what_cannot_be_listed_is_refused() -> None:
    def odd(net: nn.Sequential) -> Optimizer:
        optimizer = two_groups(net)
        optimizer.param_groups[0]["momentum"] = 0.5j
        return optimizer

    with pytest.raises(
        RecordError, match=r"the optimizer has momentum = 0\.5j, complex; expected a plain number, which can be listed"
    ):
        subject(odd)


@pytest.mark.parametrize("copy", [True, False])
def test_a_state_is_shared_or_copied(copy: bool) -> None:
    made, net = subject(optimizer_state=True)
    torch.autograd.backward(net(torch.ones(3)).sum())
    made.optimizer.step()
    state = made.state(6, copy=copy)
    assert state.epoch == 1.5 and state.optimizer is not None
    held = (state.weights["2.bias"], state.optimizer["state"][1]["momentum_buffer"])
    before = [tensor.clone() for tensor in held]
    made.optimizer.step()
    assert [tensor.equal(own) for tensor, own in zip(held, before, strict=True)] == [copy, copy]
    assert subject(steps_per_epoch=None)[0].state(6, copy=False).epoch is None


def test_groups_that_come_later_are_refused() -> None:
    net = network()
    made = Subject(net, optimizer := SGD(net[2].parameters(), lr=0.1), steps_per_epoch=1, optimizer_state=False)
    made.check_groups()
    optimizer.add_param_group({"params": net[0].parameters()})
    with pytest.raises(RecordError, match="had 1 parameter groups when the recording began and has 2 now; give it"):
        made.check_groups()
