"""Few coded rows in a folder, as the benchmarks of search and growth keep them."""

from pathlib import Path

import numpy as np

from benchmarks.scale_data import ENTRY, Stored, read_stored
from indexer.index.code import Code
from indexer.index.manifest import CodeEntry, PartEntry, VectorsEntry
from indexer.index.objects import Objects
from indexer.index.store import VectorWriter

WIDTH = 6


def few_stored(folder: Path, rows: int, rng: np.random.Generator) -> Stored:
    """Write normal rows [rows, WIDTH] of 8 bits a number."""
    objects = Objects(folder / "objects")
    code = Code(np.full(WIDTH, 8, np.uint8), np.full(WIDTH, 0.01, np.float32))
    writer = VectorWriter(objects, WIDTH, code)
    vectors = rng.normal(size=(rows, WIDTH)).astype(np.float32)
    writer.add(vectors, np.linalg.norm(vectors, axis=1))
    entry = VectorsEntry(
        dtype="coded",
        rows=rows,
        width=WIDTH,
        parts=[PartEntry(name="all", start=0, stop=WIDTH)],
        shards=writer.finish(),
        code=CodeEntry(object=objects.add(code.tensors()), row_bytes=code.row_bytes),
    )
    (folder / ENTRY).write_text(entry.model_dump_json())
    return read_stored(folder)
