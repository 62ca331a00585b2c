"""Trainer's log: at which step a logged rate was used, and the steps an epoch."""

import json
from pathlib import Path

import pytest

from indexer.checkpoints.formats.trainer_log import TrainerLog, rates_used, read_log

LINEAR = {step: 1 - (step - 1) / 20 for step in range(1, 22)}  # used in each step


def logged(every: int, shift: int) -> dict[int, float]:
    return {step: LINEAR[step + shift] for step in range(every, 21, every)}


@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("save", [2, 5, 7])
@pytest.mark.parametrize("shift", [0, 1], ids=["used", "next"])
def test_the_convention_is_seen_from_the_saved_optimizers(every: int, save: int, shift: int) -> None:
    saved = {step: LINEAR[step + 1] for step in range(save, 21, save)}
    found, sure = rates_used(logged(every, shift), saved)
    assert sure
    assert found == {step + shift: rate for step, rate in logged(every, shift).items()}
    assert all(rate == LINEAR[step] for step, rate in found.items())


def test_a_plateau_after_a_warm_up_tells_nothing() -> None:
    log = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.3, 5: 0.3}
    assert rates_used(log, {4: 0.3}) == (log, False)


def test_nothing_has_to_be_told_of_a_constant_rate_or_of_no_log() -> None:
    assert rates_used({2: 0.1, 4: 0.1}, {2: 0.1, 4: 0.1}) == ({2: 0.1, 4: 0.1}, True)
    assert rates_used({}, {4: 0.1}) == ({}, True)
    assert rates_used({2: 0.2, 4: 0.1}, {}) == ({2: 0.2, 4: 0.1}, False)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (TrainerLog(10, 2.0), 5.0),
        (TrainerLog(7, 7 / 71), 71.0),
        (TrainerLog(40, 40 / 35.5, epochs={36: 1.0, 40: 40 / 35.5}), 36.0),
        (TrainerLog(40, None, epochs={10: 0.25}), 40.0),
        (TrainerLog(10, None), None),
        (TrainerLog(10, 0.0), None),
        (TrainerLog(10, 4.0), 2.5),
    ],
)
def test_steps_an_epoch(log: TrainerLog, expected: float | None) -> None:
    assert log.steps_per_epoch() == expected


def test_evaluations_are_no_steps_of_training(tmp_path: Path) -> None:
    entries = [
        {"loss": 0.5, "learning_rate": 0.1, "grad_norm": 2.0, "epoch": 0.5, "step": 1},
        {"eval_loss": 0.7, "epoch": 1.0, "step": 2},
        {"train_loss": 0.6, "train_runtime": 1.0, "epoch": 1.0, "step": 2},
        {"loss": 0.4, "step": 2},
    ]
    state = {"epoch": 1.0, "global_step": 2, "log_history": entries}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    assert read_log(tmp_path, 2) == TrainerLog(2, 1.0, {1: 0.1}, {1: 0.5, 2: 0.4}, {1: 2.0}, {1: 0.5})
