"""``proponent demo mnist``: from nothing to an index, and nothing done twice."""

from dataclasses import replace
from pathlib import Path

import pytest

from indexer.building.build import build
from indexer.checkpoints.folder import open_run
from indexer.cli import demo
from indexer.index.versions import open_version
from indexer.recipes import mnist as recipe
from indexer.recipes.train import Schedule
from tests.indexer.cli.conftest import Command
from tests.tiny import head


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch on few of the digits, with the model and the projection of the demo."""
    small = replace(recipe.task, train=head(recipe.train_set, 64), test=head(recipe.test_set, 8))
    monkeypatch.setattr(recipe, "task", small)
    monkeypatch.setattr(recipe, "SCHEDULE", Schedule(epochs=1, keep=(1,), learning_rate=0.1))


def test_the_demo_trains_and_builds_and_says_what_is_next(command: Command, tmp_path: Path) -> None:
    done = command("demo", "mnist", "--home", tmp_path)
    assert done.exit_code == 0
    manifest = open_version(tmp_path / "indexes" / "mnist").manifest
    assert [c.path.name for c in open_run(tmp_path / "runs" / "mnist").checkpoints] == ["epoch-01.safetensors"]
    assert manifest.method.parameters["projection"]["name"] == "pca" and manifest.card is not None
    assert manifest.splits == {"train": 64, "test": 8}
    told = " ".join(done.stderr.split())
    assert "is ready; next: proponent serve" in told
    assert "indexes/mnist --task indexer.recipes.mnist:task" in told


def test_a_second_time_keeps_what_is_there(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command("demo", "mnist", "--home", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(demo, "train", None)
    monkeypatch.setattr(demo, "build", None)
    assert "is ready" in " ".join(command("demo", "mnist", "--home", tmp_path).stderr.split())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_run_without_an_index_is_only_indexed(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "build", dies)
    assert command("demo", "mnist", "--home", tmp_path).exit_code == 130
    monkeypatch.setattr(demo, "build", build)
    monkeypatch.setattr(demo, "train", None)
    command("demo", "mnist", "--home", tmp_path)
    assert open_version(tmp_path / "indexes" / "mnist").manifest.vectors.rows == 64


def test_a_demo_must_be_chosen(command: Command) -> None:
    shown = command("demo")
    assert shown.exit_code == 2
    assert "mnist" in shown.output
