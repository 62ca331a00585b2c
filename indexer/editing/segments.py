"""Segments of the table of examples: rows that are added go to one of their own, behind the others.

A table holds a pair of split and id once, and few segments can be read together. So when there would be too many, the
new one takes in all but the first, at the same positions. A dead row whose id has come back since keeps its place
there under a name and number that nothing asks for.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from indexer.index import manifest as m
from indexer.index.examples import MOST_SEGMENTS, ExampleRow, Examples, write_examples
from indexer.index.objects import ObjectRef, Objects

_CHUNK = 2**20


def with_segment(
    objects: Objects, segments: Sequence[m.ExamplesEntry], rows: Iterable[ExampleRow], count: int
) -> list[m.ExamplesEntry]:
    """Write so many new training rows, and return all segments: one more, or two where there would be too many."""
    if len(segments) < MOST_SEGMENTS:
        return [*segments, m.ExamplesEntry(object=write_segment(objects, rows), splits={"train": count})]
    first, *later = segments
    total = count + sum(entry.splits["train"] for entry in later)
    joined = write_segment(objects, _joined(objects, later, list(rows)))
    return [first, m.ExamplesEntry(object=joined, splits={"train": total})]


def write_segment(objects: Objects, rows: Iterable[ExampleRow]) -> ObjectRef:
    """Write a table of examples as an object."""
    objects.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=objects.folder, prefix=".new-") as scratch:
        path = Path(scratch) / "examples.sqlite"
        write_examples(path, rows)
        with path.open("rb") as table, objects.writing() as (file, done):
            while chunk := table.read(_CHUNK):
                file.write(chunk)
    return done[0]


def _joined(objects: Objects, later: Sequence[m.ExamplesEntry], new: Sequence[ExampleRow]) -> Iterator[ExampleRow]:
    """Yield the rows of some segments, dead ones too, and new ones behind them."""
    last: dict[str, int | None] = {}
    for rows in (_stored(objects, later), new):
        last |= {row.example.id: row.example.position for row in rows}
    for rows in (_stored(objects, later), new):
        yield from (row if last[row.example.id] == row.example.position else _set_aside(row) for row in rows)


def _stored(objects: Objects, segments: Iterable[m.ExamplesEntry]) -> Iterator[ExampleRow]:
    """Yield every row of some segments, by position: read alone, with nothing deleted."""
    for entry in segments:
        with closing(Examples([objects.path(entry.object)], np.empty(0, np.int64))) as examples:
            yield from examples.rows()


def _set_aside(row: ExampleRow) -> ExampleRow:
    position = row.example.position
    assert position is not None, "later segments hold training rows only"
    return replace(row, example=replace(row.example, id=f"{row.example.id} at {position}", row=-1 - position))
