"""Seconds: the sum of measured parts, and less where rows are there already."""

from pathlib import Path

import pytest

from indexer import BuildSpec, Task
from indexer.building import timing
from indexer.building.begin import begin
from indexer.building.timing import seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which every measured part takes a second."""
    now = iter(range(1000))
    monkeypatch.setattr(timing, "perf_counter", lambda: float(next(now)))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("there", [0, 160])
def test_seconds_are_those_of_the_parts(task: Task, run: Path, there: int) -> None:
    """A fit on one batch, a batch of 50 rows at all checkpoints, and a table of 32: one second each."""
    beginning = begin(task, BuildSpec(run, projection={"name": "pca", "sample": 100}, batch_size=50), None)
    fit = 0 if there else 1 + 2 * 100 / 50
    card = 50 * (0.02 + 300 * 3e-7)
    assert seconds(beginning, there) == pytest.approx(fit + (300 - there) / 50 + card + 400 / 32)


@pytest.mark.usefixtures("clock")
def test_float32_rows_without_a_card_take_neither_sample_nor_queries(task: Task, run: Path) -> None:
    spec = BuildSpec(run, projection={"name": "identity"}, batch_size=50, card_queries=0)
    assert seconds(begin(task, spec, None), 0) == pytest.approx(1 + 300 / 50 + 400 / 32)
