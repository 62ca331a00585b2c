"""Trainer's log: at which step a logged rate was used, and the steps an epoch."""

import json
from pathlib import Path

import pytest

from indexer.checkpoints.formats.trainer_log import TrainerLog, parting, rates_used, read_log
from indexer.errors import CheckpointError

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
        (TrainerLog(10, 1e-320), None),
        (TrainerLog(10, 1e-320, epochs={5: 1.0}), 5.0),
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


def test_the_end_of_a_warm_up_tells_nothing() -> None:
    """At step 1000 the rate is that of the next step whichever the log has; before it, it was another."""
    log = {500: 0.8, 1000: 1.0}
    assert rates_used(log, {1000: 1.0}) == (log, False)
    assert rates_used({500: 0.8, 1000: 1.0, 1500: 0.9}, {1000: 1.0}) == ({501: 0.8, 1001: 1.0, 1501: 0.9}, True)


def test_one_logged_rate_is_not_taken_for_a_constant_one() -> None:
    assert rates_used({4: 0.1}, {4: 0.1}) == ({4: 0.1}, False)
    assert rates_used({4: 0.1, 8: 0.1}, {4: 0.1, 6: 0.2}) == ({4: 0.1, 8: 0.1}, False)


LAST = TrainerLog(10, 2.0, {2: 0.3, 4: 0.2, 6: 0.1}, {2: 1.0, 4: float("inf"), 6: 0.5})


@pytest.mark.parametrize(
    ("earlier", "expected"),
    [
        (TrainerLog(4, 0.8, {2: 0.3, 4: 0.2}, {2: 1.0, 4: float("inf")}), None),
        (TrainerLog(4, 0.8, {2: 0.3}, {2: 1.0}), None),  # step 4 was logged after saving
        (LAST, None),
        (TrainerLog(6, 1.2, {2: 0.3, 6: 0.1}, {2: 1.0, 4: float("inf"), 6: 0.5}), 4),
        (TrainerLog(6, 1.2, {2: 0.3, 4: 0.2, 6: 0.1}, {2: 1.0, 4: 0.6, 6: 0.5}), 4),
        (TrainerLog(6, 1.2, {2: 0.4, 4: 0.3, 6: 0.1}, {2: 1.0, 4: float("inf"), 6: 0.5}), 2),
        (TrainerLog(6, 1.2, LAST.rates, {**LAST.losses, 5: 0.5}), 5),
    ],
)
def test_where_two_logs_part(earlier: TrainerLog, expected: int | None) -> None:
    assert parting(earlier, LAST) == expected


@pytest.mark.parametrize("name", ["optimizer.bin", "random_states_0.pkl"])
def test_a_folder_of_accelerate_is_known(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    expected = r"has no trainer_state\.json: Accelerate's save_state wrote it, and notes neither steps nor learning rat"
    with pytest.raises(CheckpointError, match=expected):
        read_log(tmp_path, 500)
