"""Compact: living rows alone, copied bit for bit into new shards and one table. No task, no model."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from indexer.building.progress import Progress, silent
from indexer.editing.edit import Edit, deleted_rows, editing, verified_examples, verified_store
from indexer.editing.first_stage import fitted_again
from indexer.editing.segments import write_segment
from indexer.errors import BuildError
from indexer.index import manifest as m
from indexer.index.examples import ExampleRow, Examples
from indexer.index.store import VectorWriter, open_store
from indexer.index.versions import IndexVersion

_ROWS = 4096  # copied at a time


def compact(folder: str | Path, progress: Progress = silent) -> IndexVersion:
    """Make a version that holds its living rows and nothing else, and return it; answers stay what they are.

    Raises:
        UnknownIndexError: the folder holds no finished index.
        CorruptIndexError: a file of the index has changed.
        BuildError: there is nothing to compact, or another edit is at work.
    """
    with editing(folder, "compact") as edit:
        before = edit.before.manifest
        if before.vectors.deleted is None and len(before.examples) == 1:
            raise BuildError(
                f"compact: index {edit.before.name!r} has no deleted rows and one table of examples; there is nothing "
                "to compact"
            )
        vectors = _copied(edit, progress)
        with closing(verified_examples(edit.before)) as examples:
            taken = max(examples.next_row("train"), before.next_row or 0)
            entry = m.ExamplesEntry(
                object=write_segment(edit.before.objects, _renumbered(examples, sum(before.splits.values()), progress)),
                splits=before.splits,
            )
        search = fitted_again(edit.before, open_store(edit.before.objects, vectors))
        return edit.commit(vectors=vectors, examples=[entry], search=search, next_row=taken)


def _copied(edit: Edit, progress: Progress) -> m.VectorsEntry:
    """Write the living rows of the vectors, each as it is stored."""
    vectors, objects = edit.before.manifest.vectors, edit.before.objects
    store = verified_store(edit.before)
    living = np.ones(vectors.rows, bool)
    living[deleted_rows(edit.before)] = False
    writer = VectorWriter(objects, vectors.width, store.code)
    for start, rows in store.pieces(_ROWS):
        writer.add_stored(rows[living[start : start + len(rows)]])
        progress("vectors", start + len(rows), vectors.rows)
    kept = {"rows": int(living.sum()), "shards": writer.finish(), "deleted": None}
    return vectors.model_copy(update=kept)


def _renumbered(examples: Examples, total: int, progress: Progress) -> Iterator[ExampleRow]:
    """Yield the living examples, training rows at the positions that they have without the deleted ones."""
    for number, row in enumerate(examples.rows()):
        living = row.example.position is not None
        yield replace(row, example=replace(row.example, position=number)) if living else row
        progress("examples", number + 1, total)
