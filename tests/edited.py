"""Versions made by hand, without a model: what an edit would write, with vectors of zeros for rows that are added."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.codecs import Preview
from indexer.index.examples import Example, ExampleRow, write_examples
from indexer.index.manifest import ExamplesEntry, ShardEntry
from indexer.index.tombstones import write_tombstones
from indexer.index.versions import IndexVersion, commit, open_version


def with_deleted(folder: Path, positions: Sequence[int], *, activate: bool = True) -> IndexVersion:
    """Commit the active version without some rows."""
    before = open_version(folder)
    entry = write_tombstones(before.objects, np.array(positions, np.int64))
    vectors = before.manifest.vectors.model_copy(update={"deleted": entry})
    return _commit(before, "delete", activate=activate, vectors=vectors)


def with_segment(folder: Path, rows: Sequence[Example], *, activate: bool = True) -> IndexVersion:
    """Commit the active version with more training examples, which have the next positions."""
    before = open_version(folder)
    vectors = before.manifest.vectors
    with before.objects.writing() as (file, shard):
        file.write(bytes(4 * vectors.width * len(rows)))
    with before.objects.writing() as (file, table):
        write_examples(Path(file.name), (ExampleRow(row, Preview("text/plain", row.id.encode())) for row in rows))
    more = vectors.model_copy(
        update={
            "rows": vectors.rows + len(rows),
            "shards": [*vectors.shards, ShardEntry(object=shard[0], rows=len(rows))],
        }
    )
    segment = ExamplesEntry(object=table[0], splits={"train": len(rows)})
    return _commit(before, "append", activate=activate, vectors=more, examples=[*before.manifest.examples, segment])


def _commit(before: IndexVersion, edit: str, *, activate: bool, **changes: Any) -> IndexVersion:
    manifest = before.manifest.model_copy(update={**changes, "parent": before.version, "edit": edit})
    return commit(before.folder, manifest, activate=activate)
