"""Builds that are stopped at any step go on and end with the objects of one that was not.

The table of examples is compared by its bytes, like every object: it is written in one order, with nothing of the
moment in it.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from indexer import Task, build
from indexer.building.source import Options, Source, open_source
from indexer.checkpoints.run import Run
from indexer.errors import DiskFullError
from indexer.index import examples
from indexer.index.versions import IndexVersion, open_version
from tests.crashes import Crash, Stops, crash, full, in_child, leave
from tests.micro import micro_run, micro_spec, micro_task

Again = Callable[[Path], IndexVersion]
FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
EVERY = 11  # of the steps, in the fast tests: no multiple of the three steps of an object
GAIN = 3  # names that a run gives before it is killed: fewer than a shard's would get it no further


@pytest.fixture(scope="module")
def micro() -> Task:
    return micro_task()


@pytest.fixture(scope="module")
def micro_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro_run(tmp_path_factory.mktemp("micro") / "run")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Three shards, of a batch each; and the source is probed once, because all builds here have the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexer.building.plan.SHARD_BATCHES", 1)
        probed: dict[Options, Source] = {}

        def once(task: Task, run: Run, options: Options) -> Source:
            if options not in probed:
                probed[options] = open_source(task, run, options)
            return probed[options]

        patch.setattr("indexer.building.begin.open_source", once)
        yield


@pytest.fixture(scope="module")
def again(micro: Task, micro_checkpoints: Path) -> Again:
    """Give the one command, into a folder; without a card, which takes half of the time and writes nothing."""
    return lambda folder: build(micro, micro_spec(micro_checkpoints, card_queries=0), folder)


@pytest.fixture(scope="module")
def uninterrupted(again: Again, tmp_path_factory: pytest.TempPathFactory) -> IndexVersion:
    return again(tmp_path_factory.mktemp("whole") / "index")


def assert_same(found: IndexVersion, expected: IndexVersion) -> None:
    """The manifests are equal byte for byte; every object is whole, and there is nothing else in the folder."""
    assert found.manifest == expected.manifest
    assert found.fingerprint == expected.fingerprint
    named = {ref.sha256 for _, ref in found.verify()}
    files = {str(path.relative_to(found.folder)) for path in found.folder.rglob("*") if path.is_file()}
    apart = {"active", "lock", "log.jsonl", f"versions/{found.version}/manifest.json"}
    assert files == {f"objects/{name}" for name in named} | apart


def steps_of(again: Again, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many durable steps a whole build takes."""
    with monkeypatch.context() as patch:
        stops = Stops(at=10**9, stop=crash).install(patch)
        again(folder)
    assert stops.seen > 40
    return stops.seen


def stopped(stops: Stops, run: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Say whether a run crashed."""
    with monkeypatch.context() as patch:
        stops.install(patch)
        try:
            run()
        except Crash:
            return True
    return False


@pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=pytest.mark.slow)])
def test_a_build_that_crashes_at_any_step_goes_on(
    again: Again,
    uninterrupted: IndexVersion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every: int,
) -> None:
    for at in range(1, steps_of(again, tmp_path / "all", monkeypatch) + 1, every):
        folder = tmp_path / str(at)
        assert stopped(Stops(at, crash), partial(again, folder), monkeypatch), at
        assert_same(again(folder), uninterrupted)


@FORKS
def test_a_build_that_is_killed_again_and_again_comes_to_its_end(
    micro: Task, micro_checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder: each run is killed when it has named a few files, and nothing cleans up behind it. With a card."""

    def again(folder: Path) -> IndexVersion:
        return build(micro, micro_spec(micro_checkpoints), folder)

    uninterrupted = again(tmp_path / "whole")
    assert uninterrupted.manifest.card is not None
    kills = 0
    with monkeypatch.context() as patch:
        Stops(GAIN, leave, only=("replace",), after=True).install(patch)
        while (status := in_child(lambda: again(tmp_path / "index"))) == 9:
            kills += 1
            assert kills < 20
    assert status == 0 and kills > 5
    assert_same(open_version(tmp_path / "index"), uninterrupted)


@pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=pytest.mark.slow)])
def test_a_disk_that_fills_up_at_any_step_is_told_and_the_build_goes_on(
    again: Again,
    uninterrupted: IndexVersion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every: int,
) -> None:
    for at in range(2, steps_of(again, tmp_path / "all", monkeypatch) + 1, every):
        folder = tmp_path / str(at)
        with monkeypatch.context() as patch:
            Stops(at, full).install(patch)
            with pytest.raises(
                DiskFullError, match=r"the disk of '.*' is full \(No space left on device\); free about"
            ):
                again(folder)
        assert [path for path in tmp_path.rglob("*") if path.name.startswith(".new-")] == []
        assert_same(again(folder), uninterrupted)


def test_a_full_disk_under_the_table_of_examples_is_told(
    again: Again, uninterrupted: IndexVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("indexer.building.estimate.table_bytes", lambda task, checkpoints: 1000.0)
        patch.setattr("indexer.index.examples._SCHEMA", f"PRAGMA max_page_count = 2; {examples._SCHEMA}")
        with pytest.raises(
            DiskFullError,
            match=r"is full \(No space left on device, at .*examples\.sqlite\); free about .* after 12 of 12 rows",
        ):
            again(tmp_path / "index")
    assert_same(again(tmp_path / "index"), uninterrupted)


def half(path: Path) -> None:
    """A write that the disk never got to the end of."""
    os.truncate(path, path.stat().st_size // 2)


def zeros(path: Path) -> None:
    """A file whose length was written and whose bytes were not."""
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    """One bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def missing(path: Path) -> None:
    """A name that the folder never got."""
    path.unlink()


@pytest.mark.parametrize("tears", [(half, flip), pytest.param((half, zeros, flip, missing), marks=pytest.mark.slow)])
def test_torn_files_are_made_again(
    again: Again,
    uninterrupted: IndexVersion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tears: tuple[Callable[[Path], None], ...],
) -> None:
    """After a crash in the last shard, every file in turn, those of the fast test in one way each."""
    crashed = tmp_path / "crashed"
    last = steps_of(again, tmp_path / "all", monkeypatch) - 18
    assert stopped(Stops(last, crash), lambda: again(crashed), monkeypatch)
    files = sorted(path.relative_to(crashed) for path in crashed.rglob("*") if path.is_file() and path.name != "lock")
    assert len([path for path in files if path.name.startswith("shard-")]) == 2 and len(files) > 12
    for i, path in enumerate(files):
        for tear in tears if len(tears) > 2 else [tears[i % 2]]:
            folder = tmp_path / f"{path.name}-{tear.__name__}"
            shutil.copytree(crashed, folder)
            tear(folder / path)
            assert_same(again(folder), uninterrupted)
