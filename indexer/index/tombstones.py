"""Tombstones: the positions of deleted rows, ascending, as little-endian int64 numbers and nothing else.

A row is never changed in place: to delete it is to write its position here, in a new file for a new version. A search
does not answer it, and tables of examples are read as if it were not there.
"""

import numpy as np
from jaxtyping import Int64

from indexer.errors import CorruptIndexError
from indexer.index.manifest import TombstonesEntry
from indexer.index.objects import Objects

_DTYPE = np.dtype("<i8")


def write_tombstones(objects: Objects, positions: Int64[np.ndarray, " t"]) -> TombstonesEntry:
    """Write the positions of all deleted rows, at least one: those of the version before, and the new ones."""
    assert len(positions) and (np.diff(positions) > 0).all() and positions[0] >= 0, "sorted, unique, and at least one"
    return TombstonesEntry(object=objects.add(positions.astype(_DTYPE).tobytes()), rows=len(positions))


def read_tombstones(objects: Objects, entry: TombstonesEntry | None, rows: int) -> Int64[np.ndarray, " t"]:
    """Return the positions of deleted rows, ascending; none without an entry. rows: of the vectors.

    Raises:
        CorruptIndexError: they are not so many, not in order, or not positions of the vectors.
    """
    if entry is None:
        return np.empty(0, np.int64)
    data = objects.read(entry.object, "tombstones")
    where = f"tombstones: {objects.path(entry.object)}"
    if len(data) != _DTYPE.itemsize * entry.rows:
        raise CorruptIndexError(
            f"{where} has {len(data):,} bytes; expected {_DTYPE.itemsize} for each of {entry.rows:,} rows. "
            "Restore the index from a copy, or rebuild it"
        )
    positions = np.frombuffer(data, _DTYPE).astype(np.int64)
    if not (np.diff(positions) > 0).all() or positions[0] < 0 or positions[-1] >= rows:
        raise CorruptIndexError(
            f"{where} does not hold positions from 0 to {rows - 1:,} in ascending order, each once; "
            "restore the index from a copy, or rebuild it"
        )
    return positions
