"""What a build will take: near what it then took, in one line, and refused where it does not fit."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from indexer import BuildSpec, Task, build
from indexer.building.begin import begin
from indexer.building.estimate import Estimate, estimate, few_of, table_bytes
from indexer.building.journal import Journal
from indexer.errors import TooLargeError
from indexer.task import read_rows
from tests.chosen import chosen

LARGER, SMALLER = 1.6, 0.98  # of what was then taken: how many directions are stored is not known before the fit
GIB = 2**30
PLENTY = Estimate(
    rows=60_000,
    there=0,
    checkpoints=5,
    disk=41 * 2**20,
    disk_peak=80 * 2**20,
    disk_there=0,
    disk_free=62 * GIB,
    memory=9 * GIB // 10,
    machine=4 * GIB,
)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "choice",
    [
        {"projection": {"name": "identity"}, "card_queries": 0},
        {"projection": {"name": "countsketch"}, "bytes_per_example": 64, "card_queries": 0},
        {"card_queries": 5},
    ],
    ids=["identity", "coded", "pca"],
)
def test_disk_is_near_what_a_build_takes(task: Task, run: Path, tmp_path: Path, choice: dict[str, object]) -> None:
    """The finished index, and the most that its folder held, looked at after every batch and example."""
    spec, folder, seen = BuildSpec(run, batch_size=100, **choice), tmp_path / "index", [0]  # type: ignore[arg-type]
    expected = estimate(begin(task, spec, None), folder)
    build(task, spec, folder, lambda *stage: seen.append(bytes_in(folder)))
    assert SMALLER * bytes_in(folder) <= expected.disk <= LARGER * bytes_in(folder)
    assert max(seen) <= expected.disk_peak


def test_a_table_of_few_tells_of_many(task: Task, run: Path, index_folder: Path) -> None:
    size = max(
        path.stat().st_size for path in (index_folder / "objects").iterdir() if b"SQLite" in path.read_bytes()[:8]
    )
    assert 0.9 < 400 * table_bytes(task, 3) / size < 1.2  # 300 to train on and 100 to ask about


def test_few_are_evenly_spaced(task: Task) -> None:
    few = few_of(task, 3)
    assert few.test is None and len(few.train) == 3
    expected = read_rows(task.train, [0, 100, 200])
    assert all(left.equal(right) for left, right in zip(read_rows(few.train, range(3)), expected, strict=True))
    assert len(few_of(task, 1000).train) == 300


def test_rows_that_are_there_are_counted(
    task: Task, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.building.plan.SHARD_BATCHES", 1)
    small = replace(task, train=chosen(task.train, range(24)), test=None)
    spec, folder = BuildSpec(run, projection={"name": "identity"}, batch_size=8, card_queries=0), tmp_path / "index"

    def dies(stage: str, done: int, total: int) -> None:
        if done > 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(small, spec, folder, dies)
    told: list[Estimate] = []
    build(small, spec, folder, announce=told.append)
    assert told[0].there == 16 and told[0].disk_there > 16 * 4920
    assert estimate(begin(small, spec, None), tmp_path / "new").there == 0
    assert estimate(begin(small, spec, None), folder, Journal(folder)).there == 0  # it is finished


def test_one_line_says_it_all() -> None:
    expected = "60,000 rows x 5 checkpoints: 41 MiB on disk (62 GiB free), 922 MiB of memory"
    assert PLENTY.line() == expected
    timed = replace(PLENTY, seconds=130.0, memory=3 * GIB // 2)
    assert timed.line() == "60,000 rows x 5 checkpoints: about 2 min, 41 MiB on disk (62 GiB free), 1.5 GiB of memory"


def test_what_fits_is_let_through() -> None:
    PLENTY.refuse_too_large(Path("index"))
    going_on = replace(PLENTY, disk_peak=62 * GIB, disk_there=10 * GIB)
    going_on.refuse_too_large(Path("index"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"disk_peak": 56 * GIB},
            "an index of 60,000 rows takes 56 GiB of disk while it is built; 62 GiB are free for",
        ),
        ({"memory": 37 * GIB // 10}, "the build takes 3.7 GiB of memory; this machine has 4.0 GiB. Index fewer para"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(change: dict[str, int], expected: str) -> None:
    with pytest.raises(TooLargeError) as exc:
        replace(PLENTY, **change).refuse_too_large(Path("index"))
    assert str(exc.value).startswith(expected)


def test_vectors_may_be_larger_than_memory(
    task: Task, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written shard by shard and read memory-mapped: what counts is a batch, a shard and the side data."""
    huge = replace(task, train=Repeated(task, 10_000_000), test=None)
    beginning = begin(huge, BuildSpec(run, card_queries=0), None)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100 * GIB))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": GIB // 1024, "SC_PAGE_SIZE": 4096}.__getitem__)
    found = estimate(beginning, tmp_path / "index")
    assert found.disk > 5_000_000_000 > found.machine
    found.refuse_too_large(tmp_path / "index")


class Repeated:
    """The examples of a task over and over."""

    def __init__(self, task: Task, rows: int) -> None:
        self.train, self.rows = task.train, rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> tuple[object, object]:
        return self.train[row % len(self.train)]


def test_the_disk_is_that_of_the_nearest_folder_that_exists(
    task: Task, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=GIB)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.chdir(tmp_path)
    beginning = begin(task, BuildSpec(run), None)
    assert estimate(beginning, Path("indexes/new")).disk_free == GIB
    assert asked == [tmp_path]
