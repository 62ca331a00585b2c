"""The vector store: rows in shards, written once, read memory-mapped.

Rows are little-endian float32 numbers or records of a code (`indexer.index.code`). A shard is nothing but rows: row r
starts at byte row_bytes * r. Shape, code and hash stand in the manifest.

The system is told not to read around a page that is waited for, which fetches megabytes for a row of some hundred bytes
where a file is read here and there. What is read from end to end, or nearly so, is asked for ahead instead.
"""

import mmap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Integer

from indexer.errors import BuildError, CorruptIndexError
from indexer.index.code import Code, read_code, scales_of
from indexer.index.manifest import ShardEntry, VectorsEntry
from indexer.index.objects import Objects

DTYPE = np.dtype("<f4")
SHARD_BYTES = 256 * 2**20
CHUNK_NUMBERS = 2**20
AHEAD = 2**20  # bytes that are asked for before they are read: less waits for the disk, more is read in vain
AT_ONCE = 2**18  # bytes of one request: systems drop what goes beyond their own limit
NEAR = 2**14  # bytes from row to row: what lies between is read with them, as to wait for each takes longer
ADVISES = hasattr(mmap.mmap, "madvise")  # some systems have no such call, and read around whatever is waited for

Positions = Sequence[int] | Integer[np.ndarray, " k"]


class VectorWriter:
    """Takes rows in order and writes them as shards of about 256 MiB: float32 numbers, or records of a code.

    first: the training row that the first one is, for messages.
    """

    def __init__(
        self, objects: Objects, width: int, code: Code | None = None, *, shard_bytes: int = SHARD_BYTES, first: int = 0
    ) -> None:
        assert code is None or code.width == width, "the code is of other vectors"
        self._objects = objects
        self._code = code
        self._limit = max(1, shard_bytes // _row_bytes(width, code))
        self._pending: list[np.ndarray] = []
        self._next = first
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
            raise BuildError(
                f"the vector of training row {self._next + int(np.argmin(finite))} holds NaN or infinity; "
                "look at that example and at the checkpoints' losses"
            )
        self.add_stored(rows if self._code is None or scales is None else self._code.encode(rows, scales))

    def add_stored(self, rows: np.ndarray) -> None:
        """Append rows as `VectorStore.pieces` yields them, bit for bit."""
        self._next += len(rows)
        while len(rows):
            some = rows[: self._limit - sum(map(len, self._pending))]
            self._pending.append(some)
            rows = rows[len(some) :]
            if sum(map(len, self._pending)) == self._limit:
                self._write()

    def finish(self) -> list[ShardEntry]:
        """Write what is left and return all shards."""
        if self._pending:
            self._write()
        return self.shards

    def _write(self) -> None:
        with self._objects.writing() as (file, done):
            for rows in self._pending:
                file.write(np.ascontiguousarray(rows).data)
        self.shards.append(ShardEntry(object=done[0], rows=sum(map(len, self._pending))))
        self._pending = []


@dataclass(frozen=True, slots=True)
class VectorStore:
    """The rows of all shards, memory-mapped: float32 [n, m], or with a code records, uint8 [n, row_bytes].

    files: what the shards are mapped from, nothing for arrays in memory. ends: for each shard, how many rows it and
    those before it hold.
    """

    shards: tuple[np.ndarray, ...]
    width: int
    code: Code | None = None
    files: tuple[mmap.mmap, ...] = field(default=(), repr=False, compare=False)
    ends: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Add up the rows of the shards."""
        object.__setattr__(self, "ends", np.cumsum([len(shard) for shard in self.shards], dtype=np.int64))

    def __len__(self) -> int:
        """Rows."""
        return int(self.ends[-1]) if self.shards else 0

    def __iter__(self) -> Iterator[Float32[np.ndarray, "c m"]]:
        """Vectors, a chunk after the other."""
        return (rows for _, rows in self.chunks())

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return _row_bytes(self.width, self.code)

    def row(self, position: int) -> Float32[np.ndarray, " m"]:
        """Return the vector at a position; raises what `stored` does."""
        vector: np.ndarray = self.rows([position])[0]
        return vector

    def rows(self, positions: Positions) -> Float32[np.ndarray, "k m"]:
        """Return the vectors at some positions: decoded together, which costs less than one by one.

        Raises:
            IndexError: there is no such position.
        """
        found = self.stored(positions)
        return found if self.code is None else self.code.decode(found)

    def products(self, query: Float64[np.ndarray, " m"], positions: Positions) -> Float64[np.ndarray, " k"]:
        """Return the inner products of a query with the vectors at some positions; raises what `stored` does."""
        found = self.stored(positions)
        products: np.ndarray = found @ query if self.code is None else self.code.values(found) @ query[self.code.order]
        return products

    def stored(self, positions: Positions) -> np.ndarray:
        """Return copies of the rows at some positions as they are stored [k, m or row_bytes].

        A shard is read once, at ascending positions.

        Raises:
            IndexError: there is no such position.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"expected positions from 0 to {len(self) - 1}, found {wanted.min()} to {wanted.max()}")
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        apart = self.row_bytes * int(ascending[-1] - ascending[0]) / (len(wanted) - 1) if len(wanted) > 1 else np.inf
        cuts = np.searchsorted(ascending, self.ends).tolist()
        found = np.empty((len(wanted), self.shards[0].shape[1]), self.shards[0].dtype)
        first = 0
        for i, (shard, end, last) in enumerate(zip(self.shards, self.ends.tolist(), cuts, strict=True)):
            if last > first:
                places = ascending[first:last] - (end - len(shard))
                if apart <= NEAR:
                    self._ask_for(i, int(places[0]), int(places[-1]) + 1)
                found[order[first:last]] = shard[places]
            first = last
        return found

    def scales(self) -> Float32[np.ndarray, " n"]:
        """Return the scale of every row; only coded rows have one."""
        assert self.code is not None, "float32 rows have no scales"
        pieces = self.pieces(max(1, AHEAD // self.row_bytes))
        return np.concatenate([scales_of(records).copy() for _, records in pieces])

    def chunks(self, numbers: int = CHUNK_NUMBERS) -> Iterator[tuple[int, Float32[np.ndarray, "c m"]]]:
        """Yield the position of its first row and the vectors of each chunk of about so many numbers, in order."""
        for start, rows in self.pieces(max(1, numbers // self.width)):
            yield start, rows if self.code is None else self.code.decode(rows)

    def pieces(self, count: int, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the position of its first row and the next rows, at most so many, as they are stored, not copied.

        start: the position of the first row. What comes next is asked for before it is read.
        """
        ahead = max(1, AHEAD // self.row_bytes)
        for i, (shard, end) in enumerate(zip(self.shards, self.ends.tolist(), strict=True)):
            before = end - len(shard)
            asked = max(0, start - before)
            for first in range(asked, len(shard), count):
                if asked < min(first + count + ahead, len(shard)):
                    until = min(first + count + 2 * ahead, len(shard))
                    self._ask_for(i, asked, until)
                    asked = until
                yield before + first, shard[first : first + count]

    def _ask_for(self, i: int, first: int, end: int) -> None:
        """Have the system read these rows of a shard, without waiting for them."""
        if self.files and ADVISES:
            _read_ahead(self.files[i], first * self.row_bytes, end * self.row_bytes)


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
    row = _row_type(entry.width, code)
    what = f"{entry.width:,} float32 numbers" if code is None else f"{code.row_bytes:,} bytes"
    files = tuple(_mapped(objects, shard, row, what) for shard in entry.shards)
    if ADVISES:
        for file in files:
            file.madvise(mmap.MADV_RANDOM)
    store = VectorStore(tuple(_rows(file, row) for file in files), entry.width, code, files)
    if code is not None:
        sound = np.isfinite(store.scales()) & (store.scales() >= 0)
        if not sound.all():
            raise CorruptIndexError(
                f"the scale of row {int(np.argmin(sound))} of the vectors is not a number from 0 on; rebuild the index"
            )
    return store


def map_rows(objects: Objects, shard: ShardEntry, row: np.dtype[Any], what: str) -> np.ndarray:
    """Memory-map a file of rows of one type, read-only; what: one row, for people.

    Raises:
        CorruptIndexError: the file does not hold that many.
    """
    return _rows(_mapped(objects, shard, row, what), row)


def _mapped(objects: Objects, shard: ShardEntry, row: np.dtype[Any], what: str) -> mmap.mmap:
    path = objects.path(shard.object)
    if shard.object.bytes != row.itemsize * shard.rows:
        raise CorruptIndexError(f"{path} does not hold {shard.rows:,} rows of {what}; rebuild the index")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), shard.object.bytes, access=mmap.ACCESS_READ)


def _rows(file: mmap.mmap, row: np.dtype[Any]) -> np.ndarray:
    rows: np.ndarray = np.frombuffer(file, row.base).reshape(-1, *row.shape)
    return rows


def _read_ahead(file: mmap.mmap, first: int, end: int) -> None:
    """Ask for some bytes of a file; of those in memory, a MiB takes 15 us."""
    with suppress(OSError):  # the system is short of what it takes, and reads them when they are looked at
        for start in range(first - first % mmap.PAGESIZE, end, AT_ONCE):
            file.madvise(mmap.MADV_WILLNEED, start, min(AT_ONCE, end - start))


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


def _row_type(width: int, code: Code | None) -> np.dtype[Any]:
    return np.dtype((DTYPE, (width,))) if code is None else np.dtype((np.uint8, (code.row_bytes,)))
