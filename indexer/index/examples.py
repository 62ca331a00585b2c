"""The examples of an index in SQLite: ids, labels, previews, content hashes and self-influence.

    example(split, id, row, position, label, content, media_type, preview)
    self_influence(position, part, value)

row: the example's number in its split of the task's data; position: the row of its vector, or NULL; content: a hash of
input and target; part: the number of the checkpoint, from 0. Written last, in one ordered pass, with nothing of the
moment in it; read-only afterwards.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.codecs import Preview
from indexer.errors import CorruptIndexError, UnknownExampleError

_UNKNOWN = "the index has no example of that split and id; ids are row numbers within the splits train and test"
CHUNK = 500  # positions a statement: far below the number of variables that any SQLite takes

_SCHEMA = """
CREATE TABLE example (
    split TEXT NOT NULL, id TEXT NOT NULL, row INTEGER NOT NULL, position INTEGER UNIQUE, label TEXT NOT NULL,
    content TEXT NOT NULL, media_type TEXT NOT NULL, preview BLOB NOT NULL, PRIMARY KEY (split, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX example_row ON example (split, row);
CREATE TABLE self_influence (
    position INTEGER NOT NULL, part INTEGER NOT NULL, value REAL NOT NULL, PRIMARY KEY (position, part)
) WITHOUT ROWID;
"""


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


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """What is written of one example."""

    example: Example
    preview: Preview


def write_examples(path: Path, rows: Iterable[ExampleRow]) -> None:
    """Write a new table."""
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
        connection.commit()
    finally:
        connection.close()


class Examples:
    """A table opened for reading; usable from any thread."""

    def __init__(self, path: Path) -> None:
        uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

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

    def check(self, splits: Mapping[str, int], rows: int) -> None:
        """Compare the table with what the manifest says of it: examples by split, and one a row of the vectors.

        Raises:
            CorruptIndexError: they differ.
        """
        found = dict(self._all("SELECT split, COUNT(*) FROM example GROUP BY split", ()))
        positions = self._all("SELECT COUNT(position), MIN(position), MAX(position) FROM example", ())[0]
        if found != {name: count for name, count in splits.items() if count} or positions != (rows, 0, rows - 1):
            raise CorruptIndexError(
                f"the table of examples holds {found} and {positions[0]} positions; "
                f"the manifest says {dict(splits)} and {rows}: rebuild the index"
            )

    def listing(self, split: str, *, start: int, count: int) -> list[Example]:
        """Return ``count`` examples of a split from number ``start`` on, in the order of the data set."""
        return self._examples("WHERE split = ? ORDER BY row LIMIT ? OFFSET ?", (split, count, start))

    def preview(self, split: str, id: str) -> Preview:
        """Return what a person is shown of one example.

        Raises:
            UnknownExampleError: the index has none of that split and id.
        """
        rows = self._all("SELECT media_type, preview FROM example WHERE split = ? AND id = ?", (split, id))
        if not rows:
            raise UnknownExampleError(_UNKNOWN)
        return Preview(*rows[0])

    def self_influence(self) -> Iterator[tuple[Example, float]]:
        """Yield every training example that has one with its total self-influence, highest first."""
        totals = self._all(
            "SELECT position, SUM(value) AS total FROM self_influence GROUP BY position ORDER BY total DESC, position",
            (),
        )
        examples = self.at([position for position, _ in totals])
        yield from zip(examples, (total for _, total in totals), strict=True)

    def _examples(self, where: str, values: Sequence[object]) -> list[Example]:
        rows = self._all(f"SELECT split, id, row, position, label, content FROM example {where}", values)
        parts: dict[int, list[float]] = {row[3]: [] for row in rows if row[3] is not None}
        marks = ",".join("?" * len(parts))
        for position, value in self._all(
            f"SELECT position, value FROM self_influence WHERE position IN ({marks}) ORDER BY position, part",
            tuple(parts),
        ):
            parts[position].append(value)
        return [
            Example(split, id, row, position, label, content, tuple(parts.get(position, ())))
            for split, id, row, position, label, content in rows
        ]

    def _all(self, query: str, values: Sequence[object]) -> list[Any]:
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as exc:
            raise CorruptIndexError(f"the table of examples cannot be read ({exc}); verify the index") from exc
