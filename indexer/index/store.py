"""The vector store: little-endian float32 rows in shards, written once, read memory-mapped.

A shard is nothing but rows: row r starts at byte 4 * width * r. Shape and hash stand in the manifest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from indexer.errors import BuildError, CorruptIndexError
from indexer.index.manifest import ShardEntry, VectorsEntry
from indexer.index.objects import Objects

DTYPE = np.dtype("<f4")
SHARD_BYTES = 256 * 2**20


class VectorWriter:
    """Takes rows in order and writes them as shards of about 256 MiB."""

    def __init__(self, objects: Objects, width: int, *, shard_bytes: int = SHARD_BYTES) -> None:
        self._objects = objects
        self._width = width
        self._limit = max(1, shard_bytes // (DTYPE.itemsize * width))
        self._pending: list[np.ndarray] = []
        self.shards: list[ShardEntry] = []

    def add(self, rows: Float[np.ndarray, "b m"]) -> None:
        """Append rows.

        Raises:
            BuildError: a row holds NaN or infinity; the first is named.
        """
        rows = rows.astype(DTYPE)
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            written = sum(shard.rows for shard in self.shards) + sum(map(len, self._pending))
            raise BuildError(
                f"the vector of training row {written + int(np.argmin(finite))} holds NaN or infinity; "
                "look at that example and at the checkpoints' losses"
            )
        self._pending.append(rows)
        while sum(map(len, self._pending)) >= self._limit:
            self._write(self._limit)

    def finish(self) -> list[ShardEntry]:
        """Write what is left and return all shards."""
        rows = sum(map(len, self._pending))
        if rows:
            self._write(rows)
        return self.shards

    def _write(self, count: int) -> None:
        rows = np.concatenate(self._pending)
        with self._objects.writing() as (file, done):
            file.write(rows[:count].tobytes())
        self.shards.append(ShardEntry(object=done[0], rows=count))
        self._pending = [rows[count:]] if count < len(rows) else []


@dataclass(frozen=True, slots=True)
class VectorStore:
    """The rows of all shards, memory-mapped."""

    shards: tuple[np.ndarray, ...]
    width: int

    def __len__(self) -> int:
        """Rows."""
        return sum(map(len, self.shards))

    def __iter__(self) -> Iterator[Float[np.ndarray, "n m"]]:
        """Shards, one after the other."""
        return iter(self.shards)

    def row(self, position: int) -> Float[np.ndarray, " m"]:
        """Return the vector at a position, not copied.

        Raises:
            IndexError: there is no such position.
        """
        if position >= 0:
            for shard in self.shards:
                if position < len(shard):
                    found: np.ndarray = shard[position]
                    return found
                position -= len(shard)
        raise IndexError(position)


def open_store(objects: Objects, entry: VectorsEntry) -> VectorStore:
    """Memory-map the vectors of a manifest.

    Raises:
        CorruptIndexError: shards, rows, width and parts do not fit together.
    """
    covered = [(0, 0), *((part.start, part.stop) for part in entry.parts), (entry.width, entry.width)]
    if any(left[1] != right[0] for left, right in pairwise(covered)):
        raise CorruptIndexError(
            f"the parts of the vectors do not cover 0 to {entry.width} without gaps; rebuild the index"
        )
    if sum(shard.rows for shard in entry.shards) != entry.rows:
        raise CorruptIndexError(
            f"the shards do not add up to the {entry.rows:,} rows of the manifest; rebuild the index"
        )
    return VectorStore(tuple(_map(objects.path(s.object), s, entry.width) for s in entry.shards), entry.width)


def _map(path: Path, shard: ShardEntry, width: int) -> np.ndarray:
    if shard.object.bytes != DTYPE.itemsize * shard.rows * width:
        raise CorruptIndexError(
            f"{path} does not hold {shard.rows:,} rows of {width:,} float32 numbers; rebuild the index"
        )
    return np.memmap(path, dtype=DTYPE, mode="r", shape=(shard.rows, width))
