"""Runs of Lightning whose rates a script set, or a scheduler by what it measured: nothing is replayed over them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from indexer.checkpoints.eta import approximate
from indexer.checkpoints.folder import open_run
from tests.runs import LIGHTNING_WARNS, Rates, assert_as_seen, lightning_run

pytestmark = LIGHTNING_WARNS
Made = tuple[Path, list[Rates]]


def constant(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    """Constant as long as anybody looks."""
    return lr_scheduler.StepLR(optimizer, 100, 0.1)


def late_halving(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    """By epoch, in the third and none before."""
    return lr_scheduler.MultiStepLR(optimizer, [2], 0.5)


def plateau(optimizer: torch.optim.Optimizer) -> lr_scheduler.ReduceLROnPlateau:
    """A tenth of the rate after every epoch: no loss falls by ten."""
    return lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)


KINDS: dict[str, dict[str, Any]] = {
    "constant": {"schedule": None, "metrics": None},
    "by hand": {"schedule": constant, "by_hand": 5},
    "by hand, few metrics": {"schedule": constant, "by_hand": 5, "metrics": 2},
    "by hand, no metrics": {"schedule": constant, "by_hand": 5, "metrics": None},
    "by hand, without a scheduler": {"schedule": None, "by_hand": 5},
    "by hand, within an epoch": {"schedule": late_halving, "interval": "epoch", "by_hand": 4},
    "by hand, until an epoch's end": {
        **{"schedule": late_halving, "interval": "epoch", "by_hand": 4, "every_n_train_steps": None},
    },
    "a plateau": {"schedule": plateau, "interval": "epoch", "metrics": None, "every_n_train_steps": 2},
    "without a scheduler and metrics": {"schedule": None, "by_hand": 5, "metrics": None},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Return a function that gives the folder of a kind of run, and the rates that it used; each is made once."""
    made: dict[str, Made] = {}

    def find(kind: str) -> Made:
        if kind not in made:
            folder = tmp_path_factory.mktemp("lightning") / "run"
            made[kind] = folder, lightning_run(folder, **KINDS[kind])
        return made[kind]

    return find


@pytest.mark.parametrize("kind", ["by hand", "by hand, without a scheduler"])
def test_noted_rates_are_not_overruled(kind: str, runs: Callable[[str], Made]) -> None:
    """By a schedule that is replayed, or by the absence of one."""
    folder, seen = runs(kind)
    found = open_run(folder)
    assert_as_seen(found, seen)
    assert approximate(found, "learning_rate") is approximate(found, "interval") is None


def test_without_a_scheduler_rates_that_differ_may_be_of_the_next_step(runs: Callable[[str], Made]) -> None:
    folder, seen = runs("without a scheduler and metrics")
    found = open_run(folder)
    assert found.checkpoints[0].learning_rates == seen[3] != seen[2]
    assert {checkpoint.rates_from for checkpoint in found.checkpoints} == {
        "as the optimizer was saved: rates were set by hand, and this one may be the next step's"
    }


def test_rates_set_by_hand_lie_on_lines_between_those_that_were_noted(runs: Callable[[str], Made]) -> None:
    """A warm-up of five steps, over before the second checkpoint, beside a scheduler that knows nothing of it."""
    folder, seen = runs("by hand, few metrics")
    found = open_run(folder)
    assert_as_seen(found, seen)
    assert approximate(found, "interval") == (
        "eta: the rates of 4 of 9 steps were not noted: 1 before step 2, the first noted, are taken as its, "
        "which a warm-up makes too large; 3 between noted steps are interpolated"
    )


def test_a_schedule_that_a_mark_contradicts_is_not_replayed(runs: Callable[[str], Made]) -> None:
    folder, seen = runs("by hand, no metrics")
    found = open_run(folder)
    assert found.history.noted(range(1, 11)).tolist() == [step in (4, 7, 10) for step in range(1, 11)]
    assert found.history.rates([4, 7, 10]).tolist() == [list(seen[step - 1]) for step in (4, 7, 10)]


def test_an_epoch_whose_rates_were_set_by_hand_is_not_spread(runs: Callable[[str], Made]) -> None:
    """The monitor writes the first step of an epoch alone, and the files have what followed them."""
    folder, seen = runs("by hand, within an epoch")
    found = open_run(folder)
    known = [1, 4, 6, 7, 10]
    assert found.history.noted(range(1, 11)).tolist() == [step in known for step in range(1, 11)]
    assert found.history.rates(known).tolist() == [list(seen[step - 1]) for step in known]
    assert found.checkpoints[0].rates_from == "interpolated between the steps 1 and 4"


def test_one_row_of_an_epoch_is_not_spread_where_its_schedule_is_known_and_another(runs: Callable[[str], Made]) -> None:
    folder, seen = runs("by hand, until an epoch's end")
    found = open_run(folder)
    assert found.history.noted(range(1, 7)).tolist() == [True, False, False, False, False, True]
    assert found.history.rates([1, 6]).tolist() == [list(seen[0]), list(seen[5])]


def test_a_plateau_is_held_until_it_goes_down(runs: Callable[[str], Made]) -> None:
    folder, seen = runs("a plateau")
    found = open_run(folder)
    assert seen[4][0] == 0.1 and seen[5][0] == pytest.approx(0.01)
    assert_as_seen(found, seen)


def test_a_constant_rate_is_taken_and_said_to_be(runs: Callable[[str], Made]) -> None:
    found = open_run(runs("constant")[0])
    assert approximate(found, "interval") == (
        "eta: the rates of 6 of 9 steps were not noted: 2 before step 3, the first noted, are taken as its, "
        "which a warm-up makes too large; 4 between noted steps are interpolated"
    )
