"""What tests of builds that are stopped share: a micro task in shards of a batch, and a build that is interrupted."""

from pathlib import Path

import pytest

from indexer import BuildSpec, Task
from tests.micro import micro_run, micro_spec, micro_task


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three shards, of a batch each."""
    monkeypatch.setattr("indexer.building.plan.SHARD_BATCHES", 1)


@pytest.fixture(scope="module")
def micro() -> Task:
    return micro_task()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro_run(tmp_path_factory.mktemp("micro") / "run")


@pytest.fixture
def spec(checkpoints: Path) -> BuildSpec:
    return micro_spec(checkpoints, card_queries=1)
