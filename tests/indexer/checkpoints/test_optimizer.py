"""What is known of a run's optimizer: its description, what it means for scores, and Adam's step sizes."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from indexer.checkpoints.optimizer import Optimizer, adam_step_sizes, describe_optimizer, read_optimizer
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
    found = adam_step_sizes(saved(tmp_path, optimizer), shapes(module), list(shapes(module)))
    assert found.named is named
    sizes = found.by_name
    assert list(sizes) == list(shapes(module))
    for (name, parameter), old in zip(module.named_parameters(), before, strict=True):
        state = optimizer.state[parameter]
        mean = state["exp_avg"] / (1 - optimizer.param_groups[0]["betas"][0] ** state["step"])
        assert relative_error(old - parameter.detach(), 0.1 * sizes[name] * mean) < STEP


def test_names_in_the_state_decide_and_not_the_order(tmp_path: Path) -> None:
    module = network()
    parameters = dict(module.named_parameters())
    groups = [
        {"params": [(name, parameters[name]) for name in names]}
        for names in (["2.bias", "0.bias"], ["2.weight", "0.weight"])
    ]
    optimizer = torch.optim.Adam(groups)
    trained(module, optimizer)
    sizes = adam_step_sizes(saved(tmp_path, optimizer), shapes(module), list(shapes(module))).by_name
    for name, parameter in parameters.items():
        moments = optimizer.state[parameter]["exp_avg_sq"] / (1 - 0.999**3)
        assert relative_error(sizes[name], 1 / (moments.sqrt() + 1e-8)) < SINGLE


def test_frozen_parameters_may_be_missing(tmp_path: Path) -> None:
    module = network()
    module[0].requires_grad_(False)
    optimizer = torch.optim.Adam(module[2].parameters())
    trained(module, optimizer)
    trainable = ["2.weight", "2.bias"]
    assert list(adam_step_sizes(saved(tmp_path, optimizer), shapes(module), trainable).by_name) == trainable


@pytest.mark.parametrize("named", [True, False])
def test_frozen_parameters_may_be_listed(named: bool, tmp_path: Path) -> None:
    """An optimizer of all parameters lists the frozen ones, and never has a state for them."""
    module = network()
    module[0].requires_grad_(False)
    optimizer = torch.optim.Adam(module.named_parameters() if named else module.parameters())
    trained(module, optimizer)
    found = adam_step_sizes(saved(tmp_path, optimizer), shapes(module), ["2.weight", "2.bias"]).by_name
    moments = optimizer.state[module.get_parameter("2.weight")]["exp_avg_sq"] / (1 - 0.999**3)
    assert list(found) == ["2.weight", "2.bias"]
    assert relative_error(found["2.weight"], 1 / (moments.sqrt() + 1e-8)) < SINGLE


Spoil = Callable[[nn.Module], torch.optim.Optimizer]
REFUSED: dict[str, tuple[Spoil, str]] = {
    "another optimizer": (
        lambda module: torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9),
        r"has no second moments \(exp_avg_sq\) of '0.weight'; expected the state of Adam or AdamW",
    ),
    "groups without names": (
        lambda module: torch.optim.Adam([{"params": [p]} for p in module.parameters()]),
        "keeps 4 parameters in 4 groups without names; the model has 4, 4 of them trainable. Construct the",
    ),
    "other parameters": (
        lambda module: torch.optim.Adam(list(module.parameters())[:3]),
        "keeps 3 parameters in 1 groups without names; the model has 4",
    ),
    "another order": (
        lambda module: torch.optim.Adam(list(module.parameters())[::-1]),
        r"expected second moments of '0.weight' of shape \(4, 3\), found \(2,\); construct the optimizer with",
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
        adam_step_sizes(saved(tmp_path, optimizer), shapes(module), list(shapes(module)))


def test_a_state_before_the_first_step_and_what_is_no_state_are_refused(tmp_path: Path) -> None:
    module = network()
    fresh = saved(tmp_path, torch.optim.Adam(module.parameters()))
    with pytest.raises(CheckpointError, match="is from before the optimizer's first step; save it after one"):
        adam_step_sizes(fresh, shapes(module), list(shapes(module)))
    torch.save(module.state_dict(), fresh)
    with pytest.raises(CheckpointError, match=r"is no state of an optimizer; save it with torch.save\(optimizer"):
        adam_step_sizes(fresh, shapes(module), list(shapes(module)))


def test_an_optimizer_is_described_and_read_back() -> None:
    weights: list[Tensor] = [nn.Parameter(torch.zeros(1))]
    described = describe_optimizer(torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True))
    assert described == {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0}
    assert read_optimizer(described, "listing") == Optimizer("sgd", {k: v for k, v in described.items() if k != "name"})
    assert describe_optimizer(torch.optim.AdamW(weights, lr=0.1))["betas"] == (0.9, 0.999)
    assert read_optimizer({"name": "AdamW"}, "listing") == Optimizer("adamw")
    assert read_optimizer(None, "listing") is None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("adam", "listing: expected optimizer .*, found 'adam'"),
        ({"momentum": 0.9}, "listing: expected optimizer"),
        ({"name": "sgd", "momentum": 1.0}, "listing: optimizer has momentum 1.0; expected a number from 0 to below 1"),
        ({"name": "sgd", "momentum": "0.9"}, "listing: optimizer has momentum '0.9'"),
    ],
)
def test_a_description_of_another_form_is_refused(entry: Any, expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected):
        read_optimizer(entry, "listing")


@pytest.mark.parametrize(
    ("optimizer", "preconditioned", "expected"),
    [
        (Optimizer("sgd", {"momentum": 0, "weight_decay": 0.1}), False, None),
        (Optimizer("sgd"), False, None),
        (
            Optimizer("sgd", {"momentum": 0.9}),
            False,
            "trained with momentum 0.9: .* about 10 times as far as",
        ),
        (
            Optimizer("adamw"),
            False,
            "trained with adamw, which scales every weight's step by itself; scores",
        ),
        (
            Optimizer("adam"),
            True,
            "trained with adam: gradients are scaled by its second moments; its",
        ),
    ],
)
def test_a_reader_is_told_what_scores_leave_out(
    optimizer: Optimizer, preconditioned: bool, expected: str | None
) -> None:
    found = optimizer.caveat(preconditioned)
    assert found is None if expected is None else re.match(expected, found or "")
