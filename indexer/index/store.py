"""The vector store: rows in shards, written once, read memory-mapped.

Rows are little-endian float32 numbers or records of a code (`indexer.index.code`). A shard is nothing but rows: row r
starts at byte row_bytes * r. Shape, code and hash stand in the manifest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from indexer.errors import BuildError, CorruptIndexError
from indexer.index.code import Code, read_code, scales_of
from indexer.index.manifest import ShardEntry, VectorsEntry
from indexer.index.objects import Objects

DTYPE = np.dtype("<f4")
SHARD_BYTES = 256 * 2**20
CHUNK_NUMBERS = 2**20


class VectorWriter:
    """Takes rows in order and writes them as shards of about 256 MiB: float32 numbers, or records of a code."""

    def __init__(
        self, objects: Objects, width: int, code: Code | None = None, *, shard_bytes: int = SHARD_BYTES
    ) -> None:
        assert code is None or code.width == width, "the code is of other vectors"
        self._objects = objects
        self._code = code
        self._limit = max(1, shard_bytes // _row_bytes(width, code))
        self._pending: list[np.ndarray] = []
        self.shards: list[ShardEntry] = []

    def add(self, rows: Float[np.ndarray, "b m"], scales: Float[np.ndarray, " b"] | None = None) -> None:
        """Append rows; with a code, each is coded as a multiple of its scale.

        Raises:
            BuildError: a row or its scale is not finite; the first is named.
        """
        assert (scales is None) == (self._code is None), "scales belong to a code"
        rows = rows.astype(DTYPE)
        finite = np.isfinite(rows).all(axis=1)
        if scales is not None:
            scales = scales.astype(DTYPE)
            finite &= np.isfinite(scales) & (scales >= 0)
        if not finite.all():
            written = sum(shard.rows for shard in self.shards) + sum(map(len, self._pending))
            raise BuildError(
                f"the vector of training row {written + int(np.argmin(finite))} holds NaN or infinity; "
                "look at that example and at the checkpoints' losses"
            )
        self._pending.append(rows if self._code is None or scales is None else self._code.encode(rows, scales))
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
    """The rows of all shards, memory-mapped: float32 [n, m], or with a code records, uint8 [n, row_bytes]."""

    shards: tuple[np.ndarray, ...]
    width: int
    code: Code | None = None

    def __len__(self) -> int:
        """Rows."""
        return sum(map(len, self.shards))

    def __iter__(self) -> Iterator[Float32[np.ndarray, "c m"]]:
        """Vectors, a chunk after the other."""
        return (rows for _, rows in self.chunks())

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return _row_bytes(self.width, self.code)

    def row(self, position: int) -> Float32[np.ndarray, " m"]:
        """Return the vector at a position: not copied, or decoded.

        Raises:
            IndexError: there is no such position.
        """
        found = self.stored(position)
        vectors = found if self.code is None else self.code.decode(found)
        vector: np.ndarray = vectors[0]
        return vector

    def rows(self, positions: Sequence[int]) -> Float32[np.ndarray, "k m"]:
        """Return the vectors at some positions, at least one: decoded together, which costs less than one by one.

        Raises:
            IndexError: there is no such position.
        """
        found = np.concatenate([self.stored(position) for position in positions])
        return found if self.code is None else self.code.decode(found)

    def stored(self, position: int) -> np.ndarray:
        """Return the row at a position as it is stored [1, m or row_bytes], not copied.

        Raises:
            IndexError: there is no such position.
        """
        if position >= 0:
            for shard in self.shards:
                if position < len(shard):
                    found: np.ndarray = shard[position : position + 1]
                    return found
                position -= len(shard)
        raise IndexError(position)

    def scales(self) -> Float32[np.ndarray, " n"]:
        """Return the scale of every row; only coded rows have one."""
        assert self.code is not None, "float32 rows have no scales"
        return np.concatenate([scales_of(shard) for shard in self.shards])

    def chunks(self, numbers: int = CHUNK_NUMBERS) -> Iterator[tuple[int, Float32[np.ndarray, "c m"]]]:
        """Yield the position of its first row and the vectors of each chunk of about so many numbers, in order."""
        for start, rows in self.pieces(max(1, numbers // self.width)):
            yield start, rows if self.code is None else self.code.decode(rows)

    def pieces(self, count: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the position of its first row and the next rows, at most so many, as they are stored, not copied."""
        start = 0
        for shard in self.shards:
            for first in range(0, len(shard), count):
                yield start + first, shard[first : first + count]
            start += len(shard)


def open_store(objects: Objects, entry: VectorsEntry) -> VectorStore:
    """Memory-map the vectors of a manifest.

    Raises:
        CorruptIndexError: shards, rows, width, parts and code do not fit together, or a scale is no number.
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
    code = _open_code(objects, entry)
    store = VectorStore(
        tuple(_map(objects.path(s.object), s, entry.width, code) for s in entry.shards), entry.width, code
    )
    if code is not None:
        sound = np.isfinite(store.scales()) & (store.scales() >= 0)
        if not sound.all():
            raise CorruptIndexError(
                f"the scale of row {int(np.argmin(sound))} of the vectors is not a number from 0 on; rebuild the index"
            )
    return store


def _row_bytes(width: int, code: Code | None) -> int:
    return DTYPE.itemsize * width if code is None else code.row_bytes


def _open_code(objects: Objects, entry: VectorsEntry) -> Code | None:
    if entry.code is None:
        return None
    code = read_code(objects.read(entry.code.object, "code of the vectors"), entry.width)
    if code.row_bytes != entry.code.row_bytes:
        raise CorruptIndexError(
            f"the code of the vectors makes records of {code.row_bytes:,} bytes; the manifest says "
            f"{entry.code.row_bytes:,}. Rebuild the index"
        )
    return code


def _map(path: Path, shard: ShardEntry, width: int, code: Code | None) -> np.ndarray:
    if shard.object.bytes != _row_bytes(width, code) * shard.rows:
        rows = f"{width:,} float32 numbers" if code is None else f"{code.row_bytes:,} bytes"
        raise CorruptIndexError(f"{path} does not hold {shard.rows:,} rows of {rows}; rebuild the index")
    dtype, numbers = (DTYPE, width) if code is None else (np.dtype(np.uint8), code.row_bytes)
    return np.memmap(path, dtype=dtype, mode="r", shape=(shard.rows, numbers)).view(np.ndarray)
