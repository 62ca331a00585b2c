"""The examples of an index in SQLite: ids, labels, previews, content hashes and self-influence.

One table is written by a build, and one more, a segment, by every edit that adds rows; they are read as one.

    example(split, id, row, position, label, content, media_type, preview)
    self_influence(position, part, value)
    self_influence_total(position, value)

row: the example's number in its split of the task's data; position: the row of its vector over all shards, or NULL;
content: a hash of input and target; part: the number of the checkpoint, from 0; a total is the sum over the parts,
rounded once. Written last, in one ordered pass, with nothing of the moment in it; read-only afterwards. The first
tables of format 1 have no totals and no indexes for order and label: the same is read from them, only slower.
"""

import errno
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.codecs import Preview
from indexer.errors import QuestionError, UnknownExampleError, UnknownLabelError
from indexer.index.check_segments import check_segments
from indexer.index.manifest import Manifest
from indexer.index.objects import Objects
from indexer.index.segments import CHUNK, Segments
from indexer.index.segments import MOST_SEGMENTS as MOST_SEGMENTS
from indexer.index.tombstones import read_tombstones

_UNKNOWN = "the index has no example of that split and id; ids are row numbers within the splits train and test"

_SCHEMA = """
CREATE TABLE example (
    split TEXT NOT NULL, id TEXT NOT NULL, row INTEGER NOT NULL, position INTEGER UNIQUE, label TEXT NOT NULL,
    content TEXT NOT NULL, media_type TEXT NOT NULL, preview BLOB NOT NULL, PRIMARY KEY (split, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX example_row ON example (split, row);
CREATE TABLE self_influence (
    position INTEGER NOT NULL, part INTEGER NOT NULL, value REAL NOT NULL, PRIMARY KEY (position, part)
) WITHOUT ROWID;
CREATE TABLE self_influence_total (position INTEGER PRIMARY KEY, value REAL NOT NULL);
"""
# made when the rows are there: sorting them once is faster than keeping them sorted, and leaves pages full
_INDEXES = """
CREATE INDEX example_label ON example (split, label, row, position);
CREATE INDEX self_influence_order ON self_influence (part, value DESC, position);
CREATE INDEX self_influence_total_order ON self_influence_total (value DESC, position);
"""
_COLUMNS = "SELECT split, id, row, position, label, content FROM example"
_ANY_LABELLED = "SELECT 1 FROM example WHERE split IN ('train', 'test') AND label = ? LIMIT 1"


@dataclass(frozen=True, slots=True)
class Example:
    """One example as the index remembers it; position is None for what has no train vector."""

    split: str
    id: str
    row: int
    position: int | None
    label: str
    content: str
    self_influence: tuple[float, ...] = ()

    @property
    def total(self) -> float | None:
        """The sum of its self-influence over the checkpoints, rounded once; None where it has none."""
        return math.fsum(self.self_influence) if self.self_influence else None

    @property
    def relabelled(self) -> bool:
        """Whether its label is the index's own: then content holds a second hash, that of the data's target."""
        return " " in self.content


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """What is written of one example."""

    example: Example
    preview: Preview


def write_examples(path: Path, rows: Iterable[ExampleRow]) -> None:
    """Write a new table.

    Raises:
        OSError: the disk is full.
        sqlite3.OperationalError: the table cannot be written for another reason.
    """
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("PRAGMA journal_mode = OFF")
        connection.executescript(_SCHEMA)
        for row in rows:
            example, preview = row.example, row.preview
            connection.execute(
                "INSERT INTO example VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(example.split, example.id, example.row, example.position, example.label, example.content),
                    *(preview.media_type, preview.data),
                ),
            )
            connection.executemany(
                "INSERT INTO self_influence VALUES (?, ?, ?)",
                ((example.position, part, value) for part, value in enumerate(example.self_influence)),
            )
            if example.total is not None:
                connection.execute("INSERT INTO self_influence_total VALUES (?, ?)", (example.position, example.total))
        connection.executescript(_INDEXES)
        connection.commit()
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from exc
        raise
    finally:
        connection.close()


class Examples(Segments):
    """The examples of a version, opened for reading; usable from any thread. Deleted ones do not exist."""

    def find(self, split: str, id: str) -> Example:
        """Return one example with its self-influence.

        Raises:
            UnknownExampleError: the index has none of that split and id.
        """
        found = self._examples("WHERE split = ? AND id = ?", (split, id))
        if not found:
            raise UnknownExampleError(_UNKNOWN)
        return found[0]

    def at(self, positions: Sequence[int]) -> list[Example]:
        """Return the training examples at the positions of the vectors, in that order."""
        found: dict[int | None, Example] = {}
        for start in range(0, len(positions), CHUNK):
            chunk = positions[start : start + CHUNK]
            marks = ",".join("?" * len(chunk))
            found |= {e.position: e for e in self._examples(f"WHERE position IN ({marks})", tuple(chunk))}
        return [found[position] for position in positions]

    def check(self, splits: Sequence[Mapping[str, int]], rows: int) -> None:
        """Compare with the manifest, or raise as `indexer.index.check_segments.check_segments` does."""
        check_segments(self, splits, rows)

    def check_label(self, label: str, labels: Sequence[str] | None) -> None:
        """Refuse a label that the index does not know; labels: those of its task, or None where it names none.

        Raises:
            UnknownLabelError: it is none of the labels, or where there are none, that of no example.
        """
        if labels is not None and label not in labels:
            raise UnknownLabelError(f"unknown label; expected one of {', '.join(map(repr, labels))}")
        if labels is None and not self.all(_ANY_LABELLED, (label,)):
            raise UnknownLabelError("unknown label; expected one that an example of the index has")

    def part_of(self, checkpoint: int | None) -> int | None:
        """Return the part that a checkpoint, counted from 1, has in self-influence; None, for all, stays None.

        Raises:
            QuestionError: the examples have no self-influence, or none of that checkpoint.
        """
        parts = self.all(
            "SELECT COUNT(*) FROM self_influence WHERE position = (SELECT position FROM self_influence LIMIT 1)"
        )[0][0]
        if parts == 0:
            raise QuestionError("this index has no self-influence: its method defines none; list examples by row")
        if checkpoint is None:
            return None
        if not 1 <= checkpoint <= parts:
            raise QuestionError(f"checkpoint: expected a number from 1 to {parts}, or none for the sum over all")
        return checkpoint - 1

    def listing(self, split: str, *, start: int, count: int, label: str | None = None) -> list[Example]:
        """Return ``count`` examples of a split, or of a label in it, from number ``start`` on, in the data's order."""
        if label is None:
            return self._examples("WHERE split = ? ORDER BY row LIMIT ? OFFSET ?", (split, count, start))
        return self._examples(
            "WHERE split = ? AND label = ? ORDER BY row LIMIT ? OFFSET ?", (split, label, count, start)
        )

    def preview(self, split: str, id: str) -> Preview:
        """Return what a person is shown of one example.

        Raises:
            UnknownExampleError: the index has none of that split and id.
        """
        rows = self.all("SELECT media_type, preview FROM example WHERE split = ? AND id = ?", (split, id))
        if not rows:
            raise UnknownExampleError(_UNKNOWN)
        return Preview(*rows[0])

    def self_influence(
        self,
        *,
        part: int | None = None,
        label: str | None = None,
        after: tuple[float, int] | None = None,
        count: int | None = None,
    ) -> Iterator[tuple[Example, float]]:
        """Yield training examples with their self-influence, the total or one part's, highest first, ties by position.

        label: only those; after: only what follows this value and position; count: at most so many.
        """
        wanted: list[str] = []
        values: list[object] = []
        if part is not None:
            wanted.append("part = ?")
            values.append(part)
        if label is not None:
            wanted.append("position IN (SELECT position FROM example WHERE split = 'train' AND label = ?)")
            values.append(label)
        if after is not None:  # in words that let SQLite start in its index at the value
            wanted.append("value <= ? AND (value < ? OR position > ?)")
            values += [after[0], *after]
        where = f"WHERE {' AND '.join(wanted)}" if wanted else ""
        found = self.all(
            f"SELECT position, value FROM self_influence{'_total' if part is None else ''} {where} "
            "ORDER BY value DESC, position LIMIT ?",
            (*values, -1 if count is None else count),
        )
        for start in range(0, len(found), CHUNK):
            chunk = found[start : start + CHUNK]
            yield from zip(self.at([position for position, _ in chunk]), (value for _, value in chunk), strict=True)

    def rows(self) -> Iterator[ExampleRow]:
        """Yield every example with its preview: training examples by position, then the other splits by row."""
        last: int | None = -1
        while page := self._examples("WHERE position > ? ORDER BY position LIMIT ?", (last, CHUNK)):
            yield from map(self._with_preview, page)
            last = page[-1].position
        for (split,) in self.all("SELECT DISTINCT split FROM example WHERE split <> 'train' ORDER BY split"):
            yield from map(self._with_preview, self.listing(split, start=0, count=-1))

    def _with_preview(self, example: Example) -> ExampleRow:
        return ExampleRow(example, self.preview(example.split, example.id))

    def _examples(self, where: str, values: Sequence[object]) -> list[Example]:
        rows = self.all(f"{_COLUMNS} {where}", values)
        parts: dict[int, list[float]] = {row[3]: [] for row in rows if row[3] is not None}
        marks = ",".join("?" * len(parts))
        for position, value in self.all(
            f"SELECT position, value FROM self_influence WHERE position IN ({marks}) ORDER BY position, part",
            tuple(parts),
        ):
            parts[position].append(value)
        return [
            Example(split, id, row, position, label, content, tuple(parts.get(position, ())))
            for split, id, row, position, label, content in rows
        ]


def open_examples(objects: Objects, manifest: Manifest) -> Examples:
    """Open the examples of a version without its deleted ones.

    Raises:
        CorruptIndexError: a segment or the tombstones are not what the manifest says.
    """
    for number, entry in enumerate(manifest.examples, 1):
        objects.check_size(entry.object, f"examples, segment {number}")
    deleted = read_tombstones(objects, manifest.vectors.deleted, manifest.vectors.rows)
    return Examples([objects.path(entry.object) for entry in manifest.examples], deleted)
