"""The demo's training loop: what it records is what it did."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch

from indexer import Task
from indexer.checkpoints.eta import etas
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import read_weights
from indexer.recipes.train import Schedule, train
from indexer.task import read_rows
from tests.chosen import chosen
from tests.tiny import tiny_model

FLOAT32 = 1e-5  # of the step's norm: one step in float32


def silent(stage: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def small(task: Task) -> Task:
    return replace(task, train=chosen(task.train, range(100)))


def test_the_listing_says_what_was_kept_in_order(small: Task, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    train(small, Schedule(3, keep=(1, 3), learning_rate=0.3), tmp_path, lambda *stage: told.append(stage))
    found = open_run(tmp_path).checkpoints
    assert [(c.path.name, c.learning_rates[0], c.step, c.epoch) for c in found] == [
        ("epoch-01.safetensors", 0.3, 2, 1),
        ("epoch-03.safetensors", 0.3, 6, 3),
    ]
    assert told == [("epochs", 1, 3), ("epochs", 2, 3), ("epochs", 3, 3)]


@pytest.mark.parametrize("rate", [0.01, 0.5])
def test_the_listed_learning_rate_is_the_one_that_was_used(small: Task, tmp_path: Path, rate: float) -> None:
    """One batch of all examples: the step is the rate times the gradient of the mean loss."""
    train(small, Schedule(2, keep=(1, 2), learning_rate=rate, batch_size=100), tmp_path, silent)
    before, after = (read_weights(checkpoint.path) for checkpoint in open_run(tmp_path).checkpoints)
    module = tiny_model()
    module.load_state_dict(before)
    inputs, targets = read_rows(small.train, range(100))
    torch.autograd.backward(small.loss(module(inputs), targets).mean())
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        step = before[name] - after[name]
        listed = open_run(tmp_path).checkpoints[1].learning_rates[0]
        assert (step - listed * parameter.grad).norm() <= FLOAT32 * max(step.norm(), before[name].norm())


def test_the_loss_falls(small: Task, tmp_path: Path) -> None:
    train(small, Schedule(20, keep=(1, 10, 20), learning_rate=0.5, batch_size=20), tmp_path, silent)
    first, middle, last = (checkpoint.train_loss or 0 for checkpoint in open_run(tmp_path).checkpoints)
    assert 2.4 > first > middle > last > 0
    assert last < 0.8 * first


def test_what_is_recorded_is_every_step(small: Task, tmp_path: Path) -> None:
    """100 examples are two batches an epoch; with one checkpoint an epoch both conventions of eta agree."""
    train(small, Schedule(3, keep=(1, 2, 3), learning_rate=0.3), tmp_path, silent)
    run = open_run(tmp_path)
    assert run.steps_per_epoch == 2
    assert run.history.steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert run.history.learning_rates.tolist() == [[0.3]] * 6
    assert [group.names for group in run.groups] == [tuple(name for name, _ in tiny_model().named_parameters())]
    for checkpoint, losses in zip(run.checkpoints, run.history.losses.reshape(3, 2), strict=True):
        assert checkpoint.train_loss == pytest.approx(losses.mean())
    assert np.array(etas(run, "interval")) == pytest.approx(np.array(etas(run, "learning_rate")))


def test_a_run_that_dies_leaves_nothing(small: Task, tmp_path: Path) -> None:
    """Then the whole one is written to the same folder, with what else is there."""

    def dies(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    schedule = Schedule(3, keep=(1, 2), learning_rate=0.1)
    with pytest.raises(KeyboardInterrupt):
        train(small, schedule, tmp_path / "run", dies)
    assert list((tmp_path / "run").iterdir()) == []
    (tmp_path / "run" / "notes.txt").touch()
    train(small, schedule, tmp_path / "run", silent)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "checkpoints.json", "notes.txt", "epoch-01.safetensors", "epoch-02.safetensors", "epoch-01.history.safetensors",
        "epoch-02.history.safetensors",
    }  # fmt: skip


def test_the_listing_comes_last(small: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    replace_path = Path.replace

    def move(path: Path, target: Path) -> Path:
        moved.append(Path(target).name)
        return replace_path(path, target)

    def trained(*_: object) -> None:
        monkeypatch.setattr(Path, "replace", move)

    train(small, Schedule(1, keep=(1,), learning_rate=0.1), tmp_path, trained)
    assert sorted(moved[:-1]) == ["epoch-01.history.safetensors", "epoch-01.safetensors"]
    assert moved[-1] == "checkpoints.json"


def test_a_seed_makes_a_run(small: Task, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        torch.manual_seed(len(name))
        before = torch.random.get_rng_state()
        train(small, Schedule(1, keep=(1,), learning_rate=0.1, seed=seed), tmp_path / name, silent)
        assert torch.random.get_rng_state().equal(before)
    one, again, other = ((tmp_path / name / "epoch-01.safetensors").read_bytes() for name in ("one", "again", "other"))
    assert one == again
    assert one != other


def test_the_listing_is_json_for_people(run: Path) -> None:
    text = (run / "checkpoints.json").read_text()
    assert text.startswith(
        '{\n  "checkpoints": [\n    {\n      "file": "epoch-01.safetensors",\n      "learning_rate": 0.1'
    )
    assert len(orjson.loads(text)["checkpoints"]) == 3
