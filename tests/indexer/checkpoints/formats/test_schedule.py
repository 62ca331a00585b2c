"""Schedules out of schedulers' states: the rates of every step as PyTorch's own scheduler set them."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as torch_schedules

from indexer.checkpoints.formats.schedule import is_known, replay
from tests.runs import watched

STEPS = 12
EXACT = 1e-12  # relative: the same operations in the same order, but for OneCycleLR's fractions


def sequence(optimizer: torch.optim.Optimizer) -> Any:
    warm_up = torch_schedules.LinearLR(optimizer, 0.1, 1.0, 4)
    decay = torch_schedules.CosineAnnealingLR(optimizer, 8, 1e-3)
    return torch_schedules.SequentialLR(optimizer, [warm_up, decay], [4])


KNOWN: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "LinearLR": lambda optimizer: torch_schedules.LinearLR(optimizer, 1.0, 0.0, STEPS),
    "LinearLR with a warm-up": lambda optimizer: torch_schedules.LinearLR(optimizer, 0.25, 1.0, 5),
    "ConstantLR": lambda optimizer: torch_schedules.ConstantLR(optimizer, 0.5, 4),
    "StepLR": lambda optimizer: torch_schedules.StepLR(optimizer, 3, 0.3),
    "MultiStepLR": lambda optimizer: torch_schedules.MultiStepLR(optimizer, [2, 7, 7], 0.5),
    "ExponentialLR": lambda optimizer: torch_schedules.ExponentialLR(optimizer, 0.9),
    "CosineAnnealingLR": lambda optimizer: torch_schedules.CosineAnnealingLR(optimizer, 9, 1e-4),
    "PolynomialLR": lambda optimizer: torch_schedules.PolynomialLR(optimizer, 10, 2.0),
    "OneCycleLR": lambda optimizer: torch_schedules.OneCycleLR(optimizer, [0.3, 0.1], total_steps=STEPS + 1),
    "OneCycleLR of three phases": lambda optimizer: torch_schedules.OneCycleLR(
        optimizer, [0.3, 0.1], total_steps=20, three_phase=True, pct_start=0.2, anneal_strategy="linear"
    ),
    "SequentialLR": sequence,
    "restarts": lambda optimizer: torch_schedules.CosineAnnealingWarmRestarts(optimizer, 2, 3, 1e-3),
    "restarts after a warm-up": lambda optimizer: torch_schedules.SequentialLR(
        optimizer,
        [
            torch_schedules.LinearLR(optimizer, 0.1, 1.0, 4),
            torch_schedules.CosineAnnealingWarmRestarts(optimizer, 3),
        ],
        [4],
    ),
}


def trained(make: Callable[[torch.optim.Optimizer], Any], steps: int = STEPS) -> tuple[Any, torch.optim.Optimizer, Any]:
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD(
        [{"params": [weights[0]], "lr": 0.1}, {"params": [weights[1]], "lr": 0.02}], momentum=0.9
    )
    seen = watched(optimizer)
    scheduler = make(optimizer)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return scheduler.state_dict(), optimizer, seen


def replayed(state: Any, optimizer: torch.optim.Optimizer) -> Any:
    return replay(state, optimizer.state_dict()["param_groups"])


@pytest.mark.parametrize("name", KNOWN)
def test_the_rates_of_all_steps_and_of_the_next_one(name: str) -> None:
    state, optimizer, seen = trained(KNOWN[name])
    found = replayed(state, optimizer)
    following = [group["lr"] for group in optimizer.param_groups]
    np.testing.assert_allclose(found, [*seen, following], rtol=EXACT)


def test_a_scheduler_that_has_not_stepped_tells_the_first_rate() -> None:
    state, optimizer, _ = trained(KNOWN["LinearLR with a warm-up"], steps=0)
    assert replayed(state, optimizer).tolist() == [[0.025, 0.005]]


UNKNOWN: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "a function": lambda optimizer: torch_schedules.LambdaLR(optimizer, lambda step: 0.9**step),
    "a function after a warm-up": lambda optimizer: torch_schedules.SequentialLR(
        optimizer,
        [torch_schedules.ConstantLR(optimizer, 0.5, 4), torch_schedules.LambdaLR(optimizer, lambda step: 0.9**step)],
        [4],
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_nothing_is_guessed_of_another_schedule(name: str) -> None:
    state, optimizer, _ = trained(UNKNOWN[name])
    assert replayed(state, optimizer) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"_last_lr": [0.5, 0.1]},
        {"_last_lr": [0.05]},
        {"_last_lr": None},
        {"base_lrs": [0.1]},
        {"base_lrs": []},
        {"base_lrs": "ab"},
        {"base_lrs": [-1.0, 0.1]},
        {"gamma": "x"},
        {"gamma": 1e308},
        {"step_size": 0},
        {"last_epoch": 10**12},
        {"last_epoch": 2_000_000},
        {"last_epoch": -1},
        {"last_epoch": "3"},
        {"more": 1},
    ],
)  # fmt: skip
def test_a_state_that_no_scheduler_saves_is_unknown(changes: dict[str, Any]) -> None:
    state, optimizer, _ = trained(KNOWN["StepLR"])
    assert replayed({**state, **changes}, optimizer) is None


def test_hostile_sequences_and_milestones_are_unknown() -> None:
    state, optimizer, _ = trained(KNOWN["SequentialLR"])
    itself: dict[str, Any] = dict(state)
    itself["_schedulers"] = [itself]
    assert replayed(itself, optimizer) is None
    assert replayed({**state, "_schedulers": []}, optimizer) is None
    state, optimizer, _ = trained(KNOWN["MultiStepLR"])
    assert replayed({**state, "milestones": Counter({2: 10**12})}, optimizer) is None


def test_one_cycle_needs_the_rates_that_the_optimizer_keeps() -> None:
    state, optimizer, _ = trained(KNOWN["OneCycleLR"])
    groups = optimizer.state_dict()["param_groups"]
    for group in groups:
        del group["max_lr"]
    assert replay(state, groups) is None


def test_restarts_that_are_stepped_by_fractions_are_unknown() -> None:
    """As PyTorch's own example does within an epoch."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch_schedules.CosineAnnealingWarmRestarts(optimizer, 3)
    optimizer.step()
    for part in range(1, 11):
        scheduler.step(part / 4)
    assert scheduler.last_epoch == 2
    assert replayed(scheduler.state_dict(), optimizer) is None


def test_a_known_schedule_that_ends_elsewhere_is_known() -> None:
    """As where a script sets rates by hand."""
    state, optimizer, _ = trained(KNOWN["StepLR"])
    groups = optimizer.state_dict()["param_groups"]
    assert is_known(state, groups) and is_known({**state, "_last_lr": [0.5, 0.1]}, groups)
    state, optimizer, _ = trained(UNKNOWN["a function"])
    assert not is_known(state, optimizer.state_dict()["param_groups"])
