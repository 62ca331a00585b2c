"""Real kills at random moments, and a disk that is really full: builds go on and end with the same objects."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer import BuildSpec, Task, build
from indexer.building.progress import Progress, silent
from indexer.errors import DiskFullError, TooLargeError
from indexer.index.versions import IndexVersion, is_index
from tests.crashes import forked, status
from tests.tiny import tiny_task

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
]
KILLS = 30
PHASES = 5  # that the kills meet at least, of those that `phase` tells apart
DISK = 32 * 2**20

Again = Callable[..., IndexVersion]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten shards of two batches."""
    monkeypatch.setattr("indexer.building.plan.SHARD_BATCHES", 2)


@pytest.fixture
def again(run: Path) -> Again:
    """Give the one command."""
    task, spec = tiny_task(rows=160), BuildSpec(run, batch_size=8, card_queries=5)
    return lambda folder, progress=silent: build(task, spec, folder, progress)


def objects_of(version: IndexVersion) -> dict[str, str]:
    """Every object that the manifest names, by its hash, each checked."""
    return {role: ref.sha256 for role, ref in version.verify()}


def phase(folder: Path) -> str:
    """Say how far a killed build came."""
    if is_index(folder):
        return "committed"
    journal = folder / "building"
    shards = len(list(journal.glob("shard-*.json")))
    if shards:
        return "all shards" if shards == 10 else f"{shards} shards"
    return next((name for name in ("fit", "plan") if (journal / f"{name}.json").is_file()), "nothing")


def test_thirty_kills_and_thirty_resumes(again: Again, tmp_path: Path) -> None:
    """Uniform over the time of an uninterrupted build; a kill that comes too late is drawn again."""
    whole = again(tmp_path / "whole")
    started = time.perf_counter()
    assert status(forked(lambda: again(tmp_path / "timed"))) == 0
    lasts = time.perf_counter() - started
    moments, phases = np.random.default_rng(5).uniform(0, lasts, 10 * KILLS), []
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        child = forked(lambda folder=folder: again(folder))  # type: ignore[misc]  # its type cannot be inferred
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        if status(child) != -signal.SIGKILL:
            continue
        phases.append(phase(folder))
        resumed = again(folder)
        assert resumed.fingerprint == whole.fingerprint, phases[-1]
        assert objects_of(resumed) == objects_of(whole), phases[-1]
        assert {path.name for path in folder.iterdir()} == {"active", "lock", "log.jsonl", "objects", "versions"}
        if len(phases) == KILLS:
            break
    assert len(phases) == KILLS
    assert len(set(phases)) >= PHASES, phases


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def filling(disk: Path, at: tuple[str, int]) -> Progress:
    """Fill the disk to its last byte when a stage has come so far."""

    def progress(stage: str, done: int, total: int) -> None:
        if stage == at[0] and done >= at[1] and not (disk / "other").exists():
            with (disk / "other").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    return

    return progress


@pytest.mark.parametrize("at", [("bases", 40), ("vectors", 8), ("vectors", 80), ("examples", 100)])
def test_a_disk_that_fills_up(again: Again, small_disk: Path, tmp_path: Path, at: tuple[str, int]) -> None:
    whole, folder = again(tmp_path / "whole"), small_disk / "index"
    with pytest.raises(DiskFullError, match=r"the disk of '.*index' is full \(.*\); .*give the same command again"):
        again(folder, filling(small_disk, at))
    assert not is_index(folder)
    assert [path for path in small_disk.rglob("*") if path.name.startswith(".new-")] == []
    (small_disk / "other").unlink()
    resumed = again(folder)
    assert resumed.fingerprint == whole.fingerprint
    assert objects_of(resumed) == objects_of(whole)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    task: Task, run: Path, small_disk: Path
) -> None:
    many = replace(task, test=None)
    spec = BuildSpec(run, projection={"name": "rank1", "numbers": 20_000})
    with pytest.raises(TooLargeError, match=r"an index of 300 rows takes .* MiB of disk .*; 32 MiB are free for"):
        build(many, spec, small_disk / "index")
    assert list(small_disk.iterdir()) == []
