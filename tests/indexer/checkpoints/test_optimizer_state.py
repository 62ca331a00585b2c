"""What an optimizer's saved state tells, wherever it is found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from indexer.checkpoints.optimizer import Optimizer
from indexer.checkpoints.optimizer_state import (
    find_optimizer_state,
    read_optimizer_state,
    recognise,
    saved_rates,
    steps_taken,
    unknown_optimizer,
)
from indexer.errors import CheckpointError
from tests.indexer.checkpoints.test_weights import Trap

STATE = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.mark.parametrize(
    "document",
    [
        STATE,
        {"optimizer_state_dict": STATE, "epoch": 3},
        {"optimizer": STATE},
        {"optim": STATE},
        {"optimizer_states": [STATE], "epoch": 1},
    ],
    ids=["bare", "tutorial", "short", "shorter", "Lightning"],
)
def test_a_state_is_found_wherever_it_is(document: Any, tmp_path: Path) -> None:
    assert find_optimizer_state(document) is STATE
    torch.save(document, tmp_path / "a.pt")
    assert read_optimizer_state(tmp_path / "a.pt", "save it again") == STATE


@pytest.mark.parametrize(
    "document",
    [
        *(None, [STATE], {}, {"model": STATE}, {"optimizer_states": []}, {"optimizer_states": STATE}, {"state": {}}),
        *({**STATE, "param_groups": []}, {**STATE, "param_groups": None}, {**STATE, "param_groups": [7]}),
        *({**STATE, "param_groups": [{"lr": 0.1}]}, {**STATE, "param_groups": [{"params": []}]}),
        *({**STATE, "param_groups": [{"params": [0], "lr": rate}]} for rate in ("0.1", None, float("nan"))),
        *({**STATE, "state": None}, {**STATE, "state": []}, {**STATE, "state": {0: 7}}),
        {**STATE, "param_groups": [{"params": ["a"], "lr": 0.1}]},
        {**STATE, "param_groups": [{"params": [0], "lr": 0.1, "param_names": 7}]},
    ],
)
def test_what_is_no_state_is_refused(document: Any, tmp_path: Path) -> None:
    assert find_optimizer_state(document) is None
    torch.save(document, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"optimizer state 'a\.pt' is no state of an optimizer; save it again"):
        read_optimizer_state(tmp_path / "a.pt", "save it again")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"optimizer": Trap(tmp_path / "witness")}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt' cannot be read as weights only; save it again"):
        read_optimizer_state(tmp_path / "a.pt", "save it again")
    assert not (tmp_path / "witness").exists()


def test_saved_rates_may_be_tensors() -> None:
    groups = [{"lr": torch.tensor(0.5), "params": [0]}, {"lr": 0, "params": [1]}]
    assert saved_rates({"state": {}, "param_groups": groups}) == (0.5, 0.0)


Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, tuple[Make, str | None]] = {
    "SGD": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "sgd"),
    "SGD without momentum": (lambda p: torch.optim.SGD(p, lr=0.1), "sgd"),
    "Adam": (lambda p: torch.optim.Adam(p, amsgrad=True), "adam"),
    "AdamW": (torch.optim.AdamW, "adamw"),
    "NAdam": (torch.optim.NAdam, "nadam"),
    "RMSprop": (torch.optim.RMSprop, "rmsprop"),
    "Adagrad": (torch.optim.Adagrad, "adagrad"),
    "RAdam": (torch.optim.RAdam, None),
    "Adamax": (torch.optim.Adamax, None),
    "Adadelta": (torch.optim.Adadelta, None),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_recognised_by_what_only_they_keep(name: str) -> None:
    make, expected = OPTIMIZERS[name]
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = make([weight])
    torch.autograd.backward(weight.square().sum())
    optimizer.step()
    found = recognise(optimizer.state_dict())
    assert (None if found is None else found.name) == expected
    assert bool(unknown_optimizer(optimizer.state_dict())) == (expected is None)


def test_parameters_are_kept_and_an_old_adam_is_called_adamw() -> None:
    sgd = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    assert recognise(sgd.state_dict()) == Optimizer("sgd", {"momentum": 0.9, "nesterov": False, "weight_decay": 0})
    adam = torch.optim.Adam([nn.Parameter(torch.ones(1))]).state_dict()
    del adam["param_groups"][0]["decoupled_weight_decay"]
    assert getattr(recognise(adam), "name", None) == "adamw"


def test_the_same_keys_with_another_state_are_not_recognised() -> None:
    adam = torch.optim.Adam([nn.Parameter(torch.ones(1))]).state_dict()
    adam["state"][0] = {"step": 1, "state1": torch.ones(1), "state2": torch.ones(1)}
    assert recognise(adam) is None
    assert unknown_optimizer(adam) == (
        "trained with an optimizer that is not known, which keeps state1, state2, step; scores account for plain "
        "gradient steps",
    )


def test_an_optimizer_that_keeps_nothing_needs_no_words() -> None:
    state = {"state": {0: {}}, "param_groups": [{"lr": 0.1, "params": [0], "trust": 7}]}
    assert recognise(state) is None and unknown_optimizer(state) == ()


def test_steps_taken() -> None:
    several = {0: {"step": torch.tensor(3.0)}, 1: {"step": 4}, 2: {}, 3: {"step": "x"}}
    assert steps_taken({**STATE, "state": several}) == 4
    assert steps_taken({**STATE, "state": {0: {"momentum_buffer": torch.ones(1)}}}) is None
