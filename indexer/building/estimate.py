"""What a build will take of disk and memory, from its plan, what its journal has and a look at a few rows.

    disk      weights, vectors, bases, search, and the table of examples by the size of a small one; while it builds
              also the journal, and the table once more
    memory    what the process has now, with the weights in it, and the most that fit, pass, card or search add to it

Both err upwards: a build that would not fit is refused before it starts. Time is `indexer.building.timing`'s.
"""

import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from indexer.building.begin import Beginning
from indexer.building.card import CARD_SHARE, SCORES_BYTES
from indexer.building.examples import example_rows
from indexer.building.journal import Journal
from indexer.building.plan import PLANNED_ON, machine_memory, shards
from indexer.building.progress import silent
from indexer.building.search import search_bytes, search_memory
from indexer.building.side import HASH_BYTES
from indexer.errors import TooLargeError
from indexer.gradients.memory import bytes_per_example
from indexer.index.examples import write_examples
from indexer.projection.pca import DEFAULT_SAMPLE
from indexer.projection.pca_fit import CANDIDATES, HEAD, RANK, TAIL
from indexer.projection.projections import FITTED
from indexer.task import Examples, Task, content_hash, read_rows

FULLEST = 0.9  # of the memory, and of the free disk: neither is this build's alone
TABLE_ROWS = 32  # of the small table
LARGER = 1.1  # a row of a large table over one of a small one, at most: its ids and positions have more digits
EMPTY_TABLE = 10 * 1024  # its roots, a page each
PAIR_BYTES = 24  # of the card, a query and row: exact score, estimate, and what their quantiles are sorted in
COPIES = 3  # of the sample's values in a fit
GIB, MIB = 2**30, 2**20

_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a build takes.

    there: rows that have their vectors, from a build that was stopped; disk: bytes of the finished index; disk_peak: of
    its folder while it is built; disk_there: those that are there; memory: of the process at most; seconds: None where
    nobody asked for them.
    """

    rows: int
    there: int
    checkpoints: int
    disk: int
    disk_peak: int
    disk_there: int
    disk_free: int
    memory: int
    machine: int
    seconds: float | None = None

    def line(self) -> str:
        """Return it in one line, for people."""
        time = "" if self.seconds is None else f"about {_duration(self.seconds)}, "
        room = f"{_bytes(self.disk)} on disk ({_bytes(self.disk_free)} free)"
        return f"{self.rows:,} rows x {self.checkpoints} checkpoints: {time}{room}, {_bytes(self.memory)} of memory"

    def refuse_too_large(self, folder: Path) -> None:
        """Refuse what the disk or the memory cannot hold.

        Raises:
            TooLargeError: with what is needed, what there is and the choices.
        """
        need = self.disk_peak - self.disk_there
        if need > FULLEST * self.disk_free:
            raise TooLargeError(
                f"an index of {self.rows:,} rows takes {_bytes(need)} of disk while it is built; "
                f"{_bytes(self.disk_free)} are free for {str(folder)!r}. Make room, or take projection 'pca' or fewer "
                "bytes an example"
            )
        if self.memory > FULLEST * self.machine:
            raise TooLargeError(
                f"the build takes {_bytes(self.memory)} of memory; this machine has {_bytes(self.machine)}. Index "
                "fewer parameters (`--parameters`), or take a smaller batch_size, sample or number of card_queries"
            )


def estimate(beginning: Beginning, folder: Path, journal: Journal | None = None) -> Estimate:
    """Return what a build takes, without the seconds; journal: of the build that it goes on with."""
    record, rows = beginning.record, len(beginning.task.train)
    queries = _queries(beginning)
    every = sum(record.rows.values())
    table = EMPTY_TABLE + int(LARGER * every * table_bytes(beginning.task, len(record.checkpoints)))
    side = rows * (HASH_BYTES + 4 * len(record.checkpoints) + 4 * queries)
    weights = sum(entry.object.bytes for entry in record.checkpoints) + record.probe.object.bytes
    row_bytes = _row_bytes(beginning)
    disk = weights + rows * row_bytes + _bases(beginning) + search_bytes(rows, row_bytes) + table
    return Estimate(
        rows=rows,
        there=0 if journal is None else _rows_there(journal),
        checkpoints=len(record.checkpoints),
        disk=disk,
        disk_peak=disk + side + table,
        disk_there=_bytes_in(folder),
        disk_free=shutil.disk_usage(_existing(folder)).free,
        memory=_resident()
        + max(
            _fit_memory(beginning),
            _pass_memory(beginning, side),
            side + PAIR_BYTES * queries * rows,
            side + search_memory(rows, row_bytes),
        ),
        machine=machine_memory(),
    )


def when_full(expected: Estimate, folder: Path) -> str:
    """Say how a build goes on whose disk filled up."""
    journal = Journal(folder)
    missing = max(MIB, expected.disk_peak - _bytes_in(folder) - shutil.disk_usage(_existing(folder)).free)
    goes_on = (
        f"it goes on after {_rows_there(journal):,} of {expected.rows:,} rows" if journal.plan() else "it begins anew"
    )
    return f"free about {_bytes(missing)} and give the same command again: {goes_on}"


def table_bytes(task: Task, checkpoints: int) -> float:
    """Return the bytes of an example in the table of examples, from a table of a few, evenly spaced."""
    few = few_of(task, TABLE_ROWS)
    contents = [content_hash(x, y) for x, y in zip(*read_rows(few.train, range(len(few.train))), strict=True)]
    values = np.full((len(contents), checkpoints), 1 / 3, np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "examples.sqlite"
        write_examples(path, example_rows(few, values, contents, silent))
        return max(0, path.stat().st_size - EMPTY_TABLE) / len(contents)


def few_of(task: Task, count: int) -> Task:
    """Return the task with so many of its training examples at most, evenly spaced, and none to ask about."""
    rows, count = len(task.train), min(count, len(task.train))
    return replace(task, train=_Chosen(task.train, [i * rows // count for i in range(count)]), test=None)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Some rows of a data set, read when they are asked for."""

    examples: Examples
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return self.examples[self.rows[row]]


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.resolve().parents) if place.is_dir())


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _row_bytes(beginning: Beginning) -> int:
    """Return the most that a row takes."""
    spec, checkpoints = beginning.spec, len(beginning.record.checkpoints)
    if spec.coded_bytes is not None:
        return spec.coded_bytes
    numbers = spec.method_parameters(checkpoints)["projection"].get("numbers", _gradient_numbers(beginning))
    return 4 * checkpoints * max(1, int(numbers))


def _gradient_numbers(beginning: Beginning) -> int:
    return sum(block.size for block in beginning.source.model.layout.blocks)


def _bases(beginning: Beginning) -> int:
    """Return about what bases take: both sides of every block, and the turn of the head to the stored directions."""
    if not _fits_bases(beginning):
        return 0
    shapes = [block.shape for block in beginning.source.model.layout.blocks]
    sides = sum(min(RANK, side) * side for shape in shapes for side in shape)
    head = min(HEAD, sum(min(RANK, m) * min(RANK, n) for m, n in shapes))
    checkpoints = len(beginning.record.checkpoints)
    directions = min(head, 2 * _row_bytes(beginning) // checkpoints)  # of half a byte each, evenly over checkpoints
    return 4 * checkpoints * (sides + directions * head)


def _fits_bases(beginning: Beginning) -> bool:
    return beginning.spec.projection.get("name") in FITTED


def _fit_memory(beginning: Beginning) -> int:
    """Return what a fit holds: the candidates' values of the sample at one checkpoint, gathered and chosen from."""
    if not _fits_bases(beginning):
        return 0
    sample: int = min(len(beginning.task.train), beginning.spec.projection.get("sample", DEFAULT_SAMPLE))
    return COPIES * 4 * sample * CANDIDATES * (HEAD + TAIL) + _batch_memory(beginning)


def _pass_memory(beginning: Beginning, side: int) -> int:
    """Return what a pass holds: a batch, the gradients of the card's queries, a shard, and the side data so far."""
    queries, row_bytes, rows = _queries(beginning), _row_bytes(beginning), len(beginning.task.train)
    size = 4 * len(beginning.record.checkpoints) * _gradient_numbers(beginning)
    asked = min(queries * size, machine_memory() // CARD_SHARE)
    shard = len(next(iter(shards(rows, beginning.plan.batch_size, row_bytes)))) * row_bytes
    return _batch_memory(beginning) + asked + shard + side


def _batch_memory(beginning: Beginning) -> int:
    some = read_rows(beginning.task.train, range(min(len(beginning.task.train), PLANNED_ON)))
    return beginning.plan.batch_size * bytes_per_example(beginning.source.model, some)


def _queries(beginning: Beginning) -> int:
    """Return how many queries the card asks at most."""
    wanted, rows = beginning.spec.card_queries, beginning.record.rows
    return min(wanted, SCORES_BYTES // (8 * rows["train"]), rows.get("test") or rows["train"])


def _rows_there(journal: Journal) -> int:
    """Return the rows of finished shards; their bytes are looked at when the build goes on with them."""
    plan = journal.plan()
    fit = None if plan is None else journal.fit(plan.seal)
    return 0 if fit is None else journal.rows(fit.seal)


def _resident() -> int:
    """Return the memory that this process takes now, or has taken at most where the system does not say."""
    if _STATM.is_file():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _bytes(count: int) -> str:
    """Return bytes in the unit that people take.

    >>> [_bytes(count) for count in (2**18, 41 * 2**20, 2**30)]
    ['0.2 MiB', '41 MiB', '1.0 GiB']
    """
    unit, name = (GIB, "GiB") if count >= GIB else (MIB, "MiB")
    return f"{count / unit:,.0f} {name}" if count >= 10 * unit else f"{count / unit:.1f} {name}"


def _duration(seconds: float) -> str:
    """Return seconds in the unit that people take.

    >>> [_duration(seconds) for seconds in (0.4, 75.0, 130.0, 9000.0)]
    ['1 s', '75 s', '2 min', '2.5 h']
    """
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
