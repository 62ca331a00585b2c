"""Folders of Trainer that hold what two trainings left, or one that was resumed, or whose rates no schedule tells."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from indexer.checkpoints.eta import approximate
from indexer.checkpoints.folder import open_run
from indexer.errors import CheckpointError
from tests.runs import Groups, assert_as_seen, trainer_run, two_groups

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that logged every step."""
    folder = tmp_path_factory.mktemp("trainer") / "run"
    trainer_run(folder, logging_steps=1)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def rewrite_logs(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    for path in folder.glob("checkpoint-*/trainer_state.json"):
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))


class _ByHand(lr_scheduler.StepLR):
    """Sets rates that its own, constant schedule has not."""

    def step(self, epoch: int | None = None) -> None:
        super().step(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * min(1, (self.last_epoch + 1) / 4)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def held_from_the_third_step(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    """Constant, after a warm-up by hand that is over at the first checkpoint."""
    return _ByHand(optimizer, 100)


def plateau(optimizer: torch.optim.Optimizer) -> lr_scheduler.ReduceLROnPlateau:
    """A tenth of the rate after every evaluation: no loss falls by ten."""
    return lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)


def tenfold(model: nn.Sequential) -> Groups:
    return [{**group, "lr": 10 * group["lr"]} for group in two_groups(model)]


def another(folder: Path, step: int = 4) -> None:
    """Put the checkpoint of another training, at ten times the rate, in the place of one."""
    trainer_run(folder / "other", tenfold, logging_steps=1)
    shutil.rmtree(folder / f"checkpoint-{step}")
    shutil.move(folder / f"other/checkpoint-{step}", folder)


TWO = r"they are of two trainings; move the checkpoints of the other one away, or, where the learning rate was set by"


@pytest.mark.parametrize("step", [2, 10])
def test_checkpoints_of_two_trainings_are_refused_by_their_logs(step: int, folder: Path) -> None:
    """The later one may be the shorter one, of which only the first checkpoints replaced those of the other."""
    another(folder, step)
    expected = rf"'checkpoint-2' and 'checkpoint-10' in .* logged different losses or learning rates at step 1: {TWO}"
    with pytest.raises(CheckpointError, match=expected):
        open_run(folder)


def test_checkpoints_of_two_trainings_are_refused_by_their_optimizers(folder: Path) -> None:
    """Their logs have no entry yet, or have lost it."""
    another(folder)
    rewrite_logs(folder, lambda document: document.update(log_history=[]))
    expected = rf"the optimizer in 'checkpoint-4' has other learning rates than those of 'checkpoint-10' in .*: {TWO}"
    with pytest.raises(CheckpointError, match=expected):
        open_run(folder)


def test_an_optimizer_with_another_rate_than_the_step_after_it_is_refused(folder: Path) -> None:
    state = torch.load(folder / "checkpoint-4/optimizer.pt", weights_only=True)
    for group in state["param_groups"]:
        group["lr"] *= 0.5
    torch.save(state, folder / "checkpoint-4/optimizer.pt")
    with pytest.raises(
        CheckpointError, match=r"the optimizer in 'checkpoint-4' has other learning rates than those of"
    ):
        open_run(folder)


def test_a_training_that_was_resumed_is_one(tmp_path: Path) -> None:
    seen = trainer_run(tmp_path / "run", logging_steps=1, max_steps=10)
    for step in (6, 8, 10):
        shutil.rmtree(tmp_path / f"run/checkpoint-{step}")
    trainer_run(tmp_path / "run", resume=True, logging_steps=1, max_steps=10)
    found = open_run(tmp_path / "run")
    assert [checkpoint.step for checkpoint in found.checkpoints] == [2, 4, 6, 8, 10]
    assert_as_seen(found, seen)


def test_logged_rates_are_not_overruled_by_a_schedule(tmp_path: Path) -> None:
    """Warmed up by hand until the first checkpoint, while PyTorch's scheduler counts on."""
    seen = trainer_run(tmp_path / "run", schedule=held_from_the_third_step, logging_steps=1, save_steps=5)
    assert seen[0] == pytest.approx((0.025, 0.005))
    found = open_run(tmp_path / "run")
    assert_as_seen(found, seen)
    assert [caveat[:50] for caveat in found.caveats] == ["the log's learning rates may be of the step after:"]


def test_a_plateau_is_held_until_it_goes_down(tmp_path: Path) -> None:
    by_epoch: dict[str, Any] = {"save_strategy": "epoch", "eval_strategy": "epoch", "metric_for_best_model": "loss"}
    seen = trainer_run(tmp_path / "run", schedule=plateau, **by_epoch)
    found = open_run(tmp_path / "run")
    assert seen[4][0] == 0.1 and seen[5][0] == pytest.approx(0.01)
    assert found.checkpoints[1].learning_rates == pytest.approx(seen[9])
    assert found.checkpoints[1].rates_from == "as noted at step 6, taken to be held until step 11"
    assert found.history.held and found.history.rates([6, 8, 11])[:, 0] == pytest.approx([0.01, 0.01, 0.001])


def test_a_level_rate_says_nothing_of_the_steps_before_it(tmp_path: Path) -> None:
    """A warm-up of two steps, which no log and no checkpoint saw, is not taken for noted."""
    seen = trainer_run(tmp_path / "run", lr_scheduler_type="constant_with_warmup", warmup_steps=2)
    found = open_run(tmp_path / "run")
    assert seen[0] == (0.0, 0.0) and not found.history.noted([1, 2]).any()
    assert approximate(found, "interval") == (
        "eta: the rates of 6 of 10 steps were not noted: 2 before step 3, the first noted, are taken as its, "
        "which a warm-up makes too large; 4 between noted steps are interpolated"
    )
