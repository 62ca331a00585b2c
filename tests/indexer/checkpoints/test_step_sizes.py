"""What is known of a run's optimizer: its description, what it means for scores, and Adam's step sizes."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from indexer.checkpoints.groups import OwnParameters
from indexer.checkpoints.step_sizes import adam_step_sizes
from indexer.errors import CheckpointError
from tests.reference import relative_error

SINGLE = 1e-5  # float32: moments of a few steps, one root and one division
STEP = 1e-4  # the difference of two weights in float32 has lost three digits


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def trained(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(module(torch.randn(5, 3)).square().mean())
        optimizer.step()


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def saved(folder: Path, optimizer: torch.optim.Optimizer) -> Path:
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    return folder / "optimizer.pt"


Make = Callable[[Iterable[Any]], torch.optim.Optimizer]
ADAMS: dict[str, Make] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.9), eps=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
}


@pytest.mark.parametrize("kind", ADAMS)
@pytest.mark.parametrize("named", [True, False])
def test_step_sizes_are_those_of_the_step_that_pytorch_took(kind: str, named: bool, tmp_path: Path) -> None:
    """The last step moved every weight by eta times its step size times the corrected mean of gradients."""
    module = network()
    optimizer = ADAMS[kind](module.named_parameters() if named else module.parameters())
    trained(module, optimizer)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    trained(module, optimizer, steps=1)
    found = adam_step_sizes(saved(tmp_path, optimizer), OwnParameters(shapes(module), list(shapes(module))))
    assert found.named is named
    sizes = found.by_name
    assert list(sizes) == list(shapes(module))
    for (name, parameter), old in zip(module.named_parameters(), before, strict=True):
        state = optimizer.state[parameter]
        mean = state["exp_avg"] / (1 - optimizer.param_groups[0]["betas"][0] ** state["step"])
        assert relative_error(old - parameter.detach(), 0.1 * sizes[name] * mean) < STEP


@pytest.mark.parametrize("key", ["optimizer_state_dict", "optimizer", "optimizer_states"])
def test_a_state_may_lie_in_a_larger_file(key: str, tmp_path: Path) -> None:
    module = network()
    optimizer = ADAMS["adam"](module.parameters())
    trained(module, optimizer)
    own = OwnParameters(shapes(module), list(shapes(module)))
    bare = adam_step_sizes(saved(tmp_path, optimizer), own).by_name
    state = optimizer.state_dict()
    inner = [state] if key == "optimizer_states" else state
    torch.save({"state_dict": module.state_dict(), key: inner}, tmp_path / "whole.ckpt")
    found = adam_step_sizes(tmp_path / "whole.ckpt", own).by_name
    assert found.keys() == bare.keys() and all(found[name].equal(bare[name]) for name in bare)


def test_names_in_the_state_decide_and_not_the_order(tmp_path: Path) -> None:
    module = network()
    parameters = dict(module.named_parameters())
    groups = [
        {"params": [(name, parameters[name]) for name in names]}
        for names in (["2.bias", "0.bias"], ["2.weight", "0.weight"])
    ]
    optimizer = torch.optim.Adam(groups)
    trained(module, optimizer)
    sizes = adam_step_sizes(saved(tmp_path, optimizer), OwnParameters(shapes(module), list(shapes(module)))).by_name
    for name, parameter in parameters.items():
        moments = optimizer.state[parameter]["exp_avg_sq"] / (1 - 0.999**3)
        assert relative_error(sizes[name], 1 / (moments.sqrt() + 1e-8)) < SINGLE


def test_groups_without_names_are_told_apart_by_shape(tmp_path: Path) -> None:
    module = network()
    optimizer = torch.optim.Adam([{"params": [parameter]} for parameter in reversed(list(module.parameters()))])
    trained(module, optimizer)
    found = adam_step_sizes(saved(tmp_path, optimizer), OwnParameters(shapes(module), list(shapes(module))))
    for name, parameter in module.named_parameters():
        moments = optimizer.state[parameter]["exp_avg_sq"] / (1 - 0.999**3)
        assert relative_error(found.by_name[name], 1 / (moments.sqrt() + 1e-8)) < SINGLE
    assert not found.named


def test_frozen_parameters_may_be_missing(tmp_path: Path) -> None:
    module = network()
    module[0].requires_grad_(False)
    optimizer = torch.optim.Adam(module[2].parameters())
    trained(module, optimizer)
    trainable = ["2.weight", "2.bias"]
    assert (
        list(adam_step_sizes(saved(tmp_path, optimizer), OwnParameters(shapes(module), trainable)).by_name) == trainable
    )


@pytest.mark.parametrize("named", [True, False])
def test_frozen_parameters_may_be_listed(named: bool, tmp_path: Path) -> None:
    """An optimizer of all parameters lists the frozen ones, and never has a state for them."""
    module = network()
    module[0].requires_grad_(False)
    optimizer = torch.optim.Adam(module.named_parameters() if named else module.parameters())
    trained(module, optimizer)
    found = adam_step_sizes(saved(tmp_path, optimizer), OwnParameters(shapes(module), ["2.weight", "2.bias"])).by_name
    moments = optimizer.state[module.get_parameter("2.weight")]["exp_avg_sq"] / (1 - 0.999**3)
    assert list(found) == ["2.weight", "2.bias"]
    assert relative_error(found["2.weight"], 1 / (moments.sqrt() + 1e-8)) < SINGLE


Spoil = Callable[[nn.Module], torch.optim.Optimizer]
REFUSED: dict[str, tuple[Spoil, str]] = {
    "another optimizer": (
        lambda module: torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9),
        r"has no second moments \(exp_avg_sq\) of '0.weight'; expected the state of Adam or AdamW",
    ),
    "other parameters": (
        lambda module: torch.optim.Adam(list(module.parameters())[:3]),
        r"keeps 3 parameters in 1 groups without names, and they fit the model's 4 .* in no single way",
    ),
    "another order": (
        lambda module: torch.optim.Adam(list(module.parameters())[::-1]),
        r"keeps 4 parameters in 1 groups without names, and they fit the model's 4 .* in no single way",
    ),
    "another name": (
        lambda module: torch.optim.Adam([(f"old.{n}", p) for n, p in module.named_parameters()]),
        "names a parameter 'old.0.weight', which the task's model has not",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_state_that_does_not_fit_is_refused(case: str, tmp_path: Path) -> None:
    make, expected = REFUSED[case]
    module = network()
    optimizer = make(module)
    trained(module, optimizer)
    with pytest.raises(CheckpointError, match=f"optimizer state 'optimizer.pt'.*{expected}"):
        adam_step_sizes(saved(tmp_path, optimizer), OwnParameters(shapes(module), list(shapes(module))))


def test_a_state_before_the_first_step_and_what_is_no_state_are_refused(tmp_path: Path) -> None:
    module = network()
    fresh = saved(tmp_path, torch.optim.Adam(module.parameters()))
    with pytest.raises(CheckpointError, match="is from before the optimizer's first step; save it after one"):
        adam_step_sizes(fresh, OwnParameters(shapes(module), list(shapes(module))))
    torch.save(module.state_dict(), fresh)
    with pytest.raises(CheckpointError, match=r"is no state of an optimizer; save it with torch.save\(optimizer"):
        adam_step_sizes(fresh, OwnParameters(shapes(module), list(shapes(module))))
