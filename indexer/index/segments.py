"""Segments of the table of examples, read as if they were one table in which deleted positions do not exist.

    temp.example = s0.example UNION ALL s1.example UNION ALL ... without the positions of main.deleted

and so for self-influence and its totals. Every segment is attached read-only to a database in memory. SQLite looks
through such views: a statement goes along each segment's own indexes, and an ordered one merges them row by row, so
that a page costs what it costs in one table. The first tables of format 1 have no totals: their view sums the parts.
"""

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from indexer.errors import CorruptIndexError

MOST_SEGMENTS = 8  # SQLite attaches at most 10 files, and a lookup asks each of them
LABELS_AT_HAND = 64  # labels whose positions are kept once they were asked for: 8 bytes a row for all classes together
CHUNK = 500  # values a statement: far below the number of variables that any SQLite takes

_LIVING = "(position IS NULL OR position NOT IN (SELECT position FROM main.deleted))"
_SUMMED = "(SELECT position, SUM(value) AS value FROM s{0}.self_influence GROUP BY position)"
_RANGE = "SELECT COUNT(position), MIN(position), MAX(position) FROM {0}"
_ENDS = "SELECT (SELECT MIN(position) FROM {0}), (SELECT MAX(position) FROM {0})"  # two steps into an index, no scan
_NONE = np.empty(0, np.int64)


class Segments:
    """Open segments, usable from any thread; s0, s1, ... are the segments, and the tables without a schema all of them.

    deleted: positions, ascending; none where it is left out.
    """

    def __init__(self, paths: Sequence[Path], deleted: Int64[np.ndarray, " t"] | None = None) -> None:
        if not 1 <= len(paths) <= MOST_SEGMENTS:
            raise CorruptIndexError(
                f"expected 1 to {MOST_SEGMENTS} segments of examples, found {len(paths)}; was the index written by a "
                "newer version?"
            )
        self.count = len(paths)
        self._by_label: dict[str, np.ndarray] = {}
        self._totals: np.ndarray | None = None
        self._deleted = _NONE if deleted is None else deleted
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(":memory:", uri=True, check_same_thread=False)
        try:
            self._sources = [self._attach(number, path) for number, path in enumerate(paths)]
            self._unite()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the files."""
        self._connection.close()

    def all(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """Return all rows of a statement.

        Raises:
            CorruptIndexError: a segment is no table of examples, or is damaged.
        """
        try:
            with self._lock:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as exc:
            raise CorruptIndexError(f"the table of examples cannot be read ({exc}); verify the index") from exc

    def next_row(self, split: str) -> int:
        """Return one past the largest row number that an example of a split has or had; 0 where it never had one."""
        found = [self.all(f"SELECT MAX(row) FROM s{i}.example WHERE split = ?", (split,)) for i in range(self.count)]
        return max((row + 1 for [(row,)] in found if row is not None), default=0)

    def totals(self) -> Float64[np.ndarray, " n"]:
        """Return the self-influence of every position, deleted ones too; of length 0 where there is none at all.

        Raises:
            CorruptIndexError: some positions have one, and others not.
        """
        having = [self.all(_RANGE.format(source)) for source in self._sources]
        wanted = [self.all(_RANGE.format(f"s{number}.example")) for number in range(self.count)]
        if any(count for [(count, _, _)] in having) and having != wanted:
            raise CorruptIndexError("some training examples have a self-influence and others none; verify the index")
        ordered = [self.all(f"SELECT value FROM {source} ORDER BY position") for source in self._sources]
        return np.fromiter((value for rows in ordered for (value,) in rows), np.float64)

    def positions(
        self,
        labels: Sequence[str] | None,
        ids: Sequence[str] | None,
        exclude_ids: Sequence[str],
        self_influence: tuple[float | None, float | None],
    ) -> Int64[np.ndarray, " r"]:
        """Return the positions of training examples that pass every filter, ascending.

        labels, ids: those with one of these, or None for all; exclude_ids: not these; self_influence: the bounds of
        its total, both included, or None. A label or id that no example has passes nothing.
        """
        stored = self._stored()
        passing = np.zeros(stored[-1] + 1 if len(stored) else 0, bool)
        passing[stored] = True
        passing[self._deleted] = False
        if labels is not None:
            passing &= _mask([self._labelled(label) for label in sorted(set(labels))], len(passing))
        if ids is not None:
            passing &= _mask([self._with_ids(ids)], len(passing))
        if self_influence != (None, None):
            passing &= _mask([stored[self._within(*self_influence)]], len(passing))
        passing[self._with_ids(exclude_ids)] = False
        return np.flatnonzero(passing)

    def _attach(self, number: int, path: Path) -> str:
        """Open a segment, and return what its totals are selected from.

        Raises:
            CorruptIndexError: the file is no database.
        """
        try:
            uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
            self._connection.execute(f"ATTACH ? AS s{number}", (uri,))
            tables = self._connection.execute(f"SELECT name FROM s{number}.sqlite_master").fetchall()
        except sqlite3.DatabaseError as exc:
            raise CorruptIndexError(
                f"the table of examples cannot be read (segment {number + 1}, {path}: {exc}); verify the index"
            ) from exc
        return f"s{number}.self_influence_total" if ("self_influence_total",) in tables else _SUMMED.format(number)

    def _unite(self) -> None:
        """Make the views; where nothing is deleted they compare nothing."""
        connection = self._connection
        connection.execute("CREATE TABLE deleted (position INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO deleted VALUES (?)", ((position,) for position in self._deleted.tolist()))
        connection.commit()
        where = f" WHERE {_LIVING}" if len(self._deleted) else ""
        tables = {name: [f"s{i}.{name}" for i in range(self.count)] for name in ("example", "self_influence")}
        for name, sources in (tables | {"self_influence_total": self._sources}).items():
            united = " UNION ALL ".join(f"SELECT * FROM {source}{where}" for source in sources)
            connection.execute(f"CREATE TEMP VIEW {name} AS {united}")

    def _stored(self) -> Int64[np.ndarray, " n"]:
        """Return all positions, deleted ones too: they have no gaps, and are those of the vectors' rows."""
        ends = [self.all(_ENDS.format(f"s{number}.example"))[0] for number in range(self.count)]
        known = [end for end in ends if end[0] is not None]
        return np.arange(min(known)[0], max(known)[1] + 1) if known else _NONE

    def _labelled(self, label: str) -> Int64[np.ndarray, " r"]:
        """Return the positions of training examples with a label; of the last labels asked for they are at hand."""
        found = self._by_label.pop(label, None)
        if found is None:
            found = _column(self.all("SELECT position FROM example WHERE split = 'train' AND label = ?", (label,)))
        self._by_label[label] = found  # the last again, where the first goes
        while len(self._by_label) > LABELS_AT_HAND:
            self._by_label.pop(next(iter(self._by_label)), None)
        return found

    def _with_ids(self, ids: Sequence[str]) -> Int64[np.ndarray, " r"]:
        """Return the positions of training examples that have one of some ids."""
        found: list[tuple[int]] = []
        values = sorted(set(ids))
        for start in range(0, len(values), CHUNK):
            chunk = values[start : start + CHUNK]
            marks = ",".join("?" * len(chunk))
            found += self.all(f"SELECT position FROM example WHERE split = 'train' AND id IN ({marks})", chunk)
        return _column(found)

    def _within(self, least: float | None, most: float | None) -> Bool[np.ndarray, " n"] | Int64[np.ndarray, " 0"]:
        """Return which stored positions have a self-influence within bounds; none where there is no self-influence."""
        if self._totals is None:
            self._totals = self.totals()
        if not len(self._totals):
            return _NONE
        low, high = -np.inf if least is None else least, np.inf if most is None else most
        found: np.ndarray = (self._totals >= low) & (self._totals <= high)
        return found


def _column(rows: list[tuple[int]]) -> Int64[np.ndarray, " r"]:
    return np.fromiter((value for (value,) in rows), np.int64, len(rows))


def _mask(positions: Sequence[Int64[np.ndarray, "..."]], count: int) -> Bool[np.ndarray, " n"]:
    """Return a mask over so many positions that has these set."""
    mask = np.zeros(count, bool)
    for some in positions:
        mask[some] = True
    return mask
