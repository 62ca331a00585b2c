"""The pass over the training set that makes its vectors, and with them everything that needs the same gradients."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from indexer.building.card import CardQueries
from indexer.building.examples import check_labels
from indexer.building.journal import ShardJournal
from indexer.building.plan import batches, shards
from indexer.building.progress import Progress
from indexer.building.side import Hashes, Side, SideWriter, side_of
from indexer.errors import BuildError
from indexer.index.code import Code
from indexer.index.manifest import Plan, ShardEntry
from indexer.index.objects import Objects
from indexer.index.store import DTYPE, VectorWriter, map_rows
from indexer.methods.method import Asked, Method
from indexer.task import Task, content_hash, read_rows

ROUNDING = 0.05  # of the length of vectors: what a GPU's order of sums, and a code, can make of the same gradients


@dataclass(frozen=True, slots=True)
class VectorRows:
    """What the pass leaves: shards, and the side data of all rows."""

    shards: list[ShardEntry]
    side: Side

    @property
    def content(self) -> Hashes:
        """Content hashes [n]."""
        return Hashes(self.side.content)

    @property
    def self_influence(self) -> Float[np.ndarray, "n c"] | None:
        """By checkpoint; None where the method has none."""
        return self.side.self_influence

    @property
    def exact(self) -> Float[np.ndarray, "q n"] | None:
        """Exact scores of the card's queries; None where there are none."""
        return self.side.scores


@dataclass(frozen=True, slots=True)
class Pass:
    """A method that is ready, how its rows are coded (None: float32), and the plan."""

    method: Method
    code: Code | None
    plan: Plan

    @property
    def row_bytes(self) -> int:
        """Bytes of a stored vector."""
        return self.row_type.itemsize

    @property
    def row_type(self) -> np.dtype[Any]:
        """What a stored vector is: numbers, or the bytes of a code's record."""
        if self.code is None:
            return np.dtype((DTYPE, (self.method.parts[-1].stop,)))
        return np.dtype((np.uint8, (self.code.row_bytes,)))


def write_vectors(
    task: Task,
    of: Pass,
    queries: CardQueries | None,
    objects: Objects,
    progress: Progress,
    journal: ShardJournal | None = None,
) -> VectorRows:
    """Stream the training set through the method, once, but for the shards that a journal has.

    Raises:
        BuildError: a vector is not finite, or a row of a finished shard has changed, or its gradient.
    """
    total = len(task.train)
    ranges = shards(total, of.plan.batch_size, of.row_bytes)
    there = {} if journal is None else journal.finished(ranges)
    if journal is not None:
        _check_unchanged(task, journal, {number: ranges[number] for number in there}, of.plan, progress)
        for number in sorted(there)[:1]:
            _check_gradients(task, of, ranges[number], objects, there[number])
    asked = None if queries is None or len(there) == len(ranges) else of.method.asked(queries.batch)
    told = _Told(progress, total, sum(len(ranges[number]) for number in there))
    entries, sides = [], SideWriter(total)
    for number, rows in enumerate(ranges):
        if journal is not None and number in there:
            entry, side = there[number], journal.side(number)
        else:
            entry, side = _shard(task, of, rows, asked, objects, told)
            if journal is not None:
                journal.keep(number, rows, entry, side)
        entries.append(entry)
        sides.add(side)
    return VectorRows(entries, sides.finish())


class _Told:
    """Tells how many rows have their vectors, those of before included."""

    def __init__(self, progress: Progress, total: int, done: int) -> None:
        self._progress, self._total, self._done = progress, total, done
        if done:
            progress("vectors", done, total)

    def __call__(self, rows: int) -> None:
        self._done += rows
        self._progress("vectors", self._done, self._total)


def _shard(
    task: Task, of: Pass, rows: range, asked: Asked | None, objects: Objects, told: _Told
) -> tuple[ShardEntry, Side]:
    writer = VectorWriter(objects, of.method.parts[-1].stop, of.code, first=rows.start)
    sides = SideWriter(len(rows))
    for part in batches(len(rows), of.plan.batch_size):
        here = rows[part.start : part.stop]
        inputs, targets = read_rows(task.train, here)
        check_labels(task, "train", here, targets)
        found = of.method.train_rows((inputs, targets), asked)
        vectors = found.vectors.float().cpu().numpy()
        writer.add(vectors, None if of.code is None else row_scales(vectors, found.self_influence))
        norms, scores = (None if t is None else t.cpu().numpy() for t in (found.self_influence, found.scores))
        sides.add(side_of(_hashes(inputs, targets), norms, scores))
        told(len(here))
    [entry] = writer.finish()
    return entry, sides.finish()


def _check_unchanged(
    task: Task, journal: ShardJournal, there: Mapping[int, range], plan: Plan, progress: Progress
) -> None:
    """Read the rows of finished shards once more.

    Raises:
        BuildError: one is not what it was when its vector was made.
    """
    total, done = sum(map(len, there.values())), 0
    for number, rows in there.items():
        content = Hashes(journal.side(number).content)
        for part in batches(len(rows), plan.batch_size):
            here = rows[part.start : part.stop]
            for row, found in zip(here, _hashes(*read_rows(task.train, here)), strict=True):
                if found != content[row - rows.start]:
                    raise BuildError(
                        f"task.train has another example at row {row} than when its vector was made, in the build that "
                        "this one goes on with; give the same data, or begin anew with `--restart` (restart=True)"
                    )
            done += len(here)
            progress("checking", done, total)


def _check_gradients(task: Task, of: Pass, rows: range, objects: Objects, shard: ShardEntry) -> None:
    """Make the vectors of a finished shard's first batch again: probe outputs do not tell what gradients are.

    Bit for bit, under the plan and on the kind of processor that made them; a GPU may add up in any order, and is given
    what rounding can do.

    Raises:
        BuildError: they are others than those that are stored.
    """
    here = rows[: of.plan.batch_size]
    made = of.method.train_rows(read_rows(task.train, here))
    vectors = made.vectors.float().cpu().numpy().astype(DTYPE)
    stored = map_rows(objects, shard, of.row_type, f"{of.row_bytes:,} bytes")[: len(here)]
    scales = row_scales(vectors, made.self_influence)
    if np.isfinite(vectors).all() and np.isfinite(scales).all():
        again = vectors if of.code is None else of.code.encode(vectors, scales)
        if again.tobytes() == stored.tobytes():
            return
        before, now = (rows if of.code is None else of.code.decode(rows) for rows in (stored, again))
        on_cpu = torch.device(of.plan.device).type == "cpu"
        if not on_cpu and np.linalg.norm(now - before) <= ROUNDING * np.linalg.norm(before):
            return
    raise BuildError(
        f"the gradients of rows {here[0]} to {here[-1]} of task.train are others than in the build that this one goes "
        "on with, though the data are the same: the model or the loss has changed. Give the same again, or begin anew "
        "with `--restart` (restart=True)"
    )


def _hashes(inputs: torch.Tensor, targets: torch.Tensor) -> list[str]:
    return [content_hash(x, y) for x, y in zip(inputs, targets, strict=True)]


def row_scales(vectors: Float[np.ndarray, "b m"], self_influence: torch.Tensor | None) -> Float[np.ndarray, " b"]:
    """Return what coded rows are relative to: the true norm of the gradient, or the vector's where none is known."""
    if self_influence is None:
        norms: np.ndarray = np.linalg.norm(vectors, axis=1)
    else:
        norms = self_influence.double().sum(1).sqrt().cpu().numpy()
    return norms.astype(np.float32)
