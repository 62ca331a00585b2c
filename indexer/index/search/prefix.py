"""The first stage: every row on its leading directions, the longest rows first, with bounds for what is left out.

With V [m, p] of orthonormal columns, the leading directions of the train vectors, a row x and a query q are

    x = V (y + e) + r,    y the coded V'x, e what its code loses, r what is not in these directions
    | q . x  -  (V'q) . y |  <=  |V'q| |e|  +  |q - V V'q| |r|    and    |q . x| <= |q| |x|

Both are Cauchy-Schwarz: they hold for any vectors and queries, and the leading directions only make them tight. As rows
are read by their norms from the highest down, the second says when to stop. Most examples are learnt and have almost no
gradient: of a million rows a few per cent are read at all (`benchmarks/`).

The directions mix checkpoints, which a stored vector never does: nothing of this stage is ever part of a score.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float, Float32, Float64, Int64

from indexer.errors import CorruptIndexError
from indexer.index.code import SCALE_BYTES, scales_of
from indexer.index.manifest import PrefixEntry, ShardEntry
from indexer.index.objects import Objects
from indexer.index.search.scan import products
from indexer.index.store import VectorStore, map_rows, open_store

SIDES = np.dtype([("position", "<u4"), ("norm", "<f4"), ("rest", "<f4"), ("error", "<f4")])  # |x|, |r| and |e| of a row
CHUNK_NUMBERS = 2**18  # 1 MiB of float32: with larger chunks more is read than has to be, smaller ones are more calls
ROUNDING = 2.0**-24  # of float32, relative
TINY = np.finfo(np.float32).tiny  # nothing that float32 loses below its smallest normal number adds up to as much
HIDDEN = 1e-6  # of a norm: what |x|^2 - |y|^2 in float64 can hide of |r|
ORTHONORMAL = 1e-9  # V'V in float64 errs by about 1e-13; the bounds carry more than this


@dataclass(frozen=True, slots=True, eq=False)
class Bounded:
    """Some rows in the order of the prefix, for one query: each product is within `slack` of its estimate.

    most: no row from these on can have a product further from 0.
    """

    first: int
    most: float
    estimates: Float32[np.ndarray, " c"]
    slack: Float32[np.ndarray, " c"]


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """Coded leading coordinates [n, p], their directions [m, p], and a side of each row [n], norms descending."""

    store: VectorStore
    rotation: Float64[np.ndarray, "m p"]
    sides: np.ndarray

    def __len__(self) -> int:
        """Rows."""
        return len(self.sides)

    @property
    def longest(self) -> float:
        """A norm that none of the rows exceeds."""
        return float(self.sides["norm"][0])

    def longest_of(self, places: Int64[np.ndarray, " r"]) -> float:
        """Return the same for the rows at some ascending places; 0 where there is none."""
        return float(self.sides["norm"][places[0]]) if len(places) else 0.0

    def positions(self, places: Int64[np.ndarray, " r"]) -> Int64[np.ndarray, " r"]:
        """Return the positions of the rows at some places in the order of the prefix."""
        found: np.ndarray = self.sides["position"][places].astype(np.int64)
        return found

    def bounded(self, query: Float[np.ndarray, " m"]) -> Iterator[Bounded]:
        """Yield all rows with bounds on their products with a query, a chunk after the other.

        Estimates are made in float32, of bytes as they are stored: to centre them first, as `Code.levels` does, takes
        as long as to unpack them. An inner product of p terms errs by at most p roundings of the sum of their absolute
        values: 255 |w| for the bytes and 128 |w| for the offset, over all weights w. 16 more roundings are for factors
        and slack.
        """
        code = self.store.code
        assert code is not None, "a prefix is coded"
        query = query.astype(np.float64)
        leading = query @ self.rotation
        length, inside = float(np.linalg.norm(query)), float(np.linalg.norm(leading))
        outside = max(0.0, length**2 - inside**2) ** 0.5 + HIDDEN * length
        weights, half = code.fold(leading[None])
        offset = -255 * half[0, 0]  # bytes are 127.5 above what they stand for, and `half` is half of all weights
        magnitude = 3 * length + 384 * float(np.abs(weights).sum())
        rounding = np.float32((self.rotation.shape[1] + 16) * ROUNDING * magnitude)
        stored = weights.shape[1]
        levels = np.empty((max(1, CHUNK_NUMBERS // max(1, stored)), stored), np.float32)
        for first, records in self.store.pieces(len(levels)):
            sides = self.sides[first : first + len(records)]
            unpacked = levels[: len(records)]
            unpacked[:] = records[:, SCALE_BYTES:]
            estimates = products(weights, unpacked)[0]
            estimates += offset
            estimates *= scales_of(records)
            slack = np.float32(inside) * sides["error"]
            slack += np.float32(outside) * sides["rest"]
            slack += rounding * sides["norm"]
            slack += TINY
            lost = ~np.isfinite(estimates)
            if lost.any():
                estimates[lost], slack[lost] = 0, np.inf
            yield Bounded(first, length * float(sides["norm"][0]) * (1 + 4 * ROUNDING), estimates, slack)


def open_prefix(objects: Objects, entry: PrefixEntry, store: VectorStore) -> Prefix:
    """Memory-map a prefix of the rows of a store.

    Raises:
        CorruptIndexError: its files do not fit each other or the store.
    """
    rows, width = entry.vectors.rows, entry.vectors.width
    leading = open_store(objects, entry.vectors)
    rotation = _read_rotation(objects.read(entry.rotation, "rotation of the search"), (store.width, width))
    objects.check_size(entry.sides, "sides of the search")
    sides = map_rows(objects, ShardEntry(object=entry.sides, rows=rows), SIDES, "a position and three numbers")
    if leading.code is None or rows > len(store):
        raise CorruptIndexError(
            f"the search covers {rows:,} rows, and the index has {len(store):,}; rebuild the search of the index"
        )
    if (leading.code.bits % 8).any():
        raise CorruptIndexError("the search has coordinates of 4 bits, which it never writes; rebuild the search")
    _check_sides(sides)
    return Prefix(leading, rotation, sides)


def _read_rotation(data: bytes, shape: tuple[int, int]) -> Float64[np.ndarray, "m p"]:
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError) as exc:  # KeyError: a dtype that NumPy lacks
        raise CorruptIndexError("the rotation of the search is not safetensors; rebuild the search") from exc
    found = {name: (str(tensor.dtype), tensor.shape) for name, tensor in tensors.items()}
    expected = {"rotation": ("float64", shape)}
    if found != expected:
        raise CorruptIndexError(f"the rotation of the search: expected {expected}, found {found}; rebuild the search")
    rotation = tensors["rotation"]
    if not (np.abs(rotation.T @ rotation - np.eye(shape[1])) <= ORTHONORMAL).all():
        raise CorruptIndexError("the columns of the search's rotation are not orthonormal; rebuild the search")
    return rotation


def _check_sides(sides: np.ndarray) -> None:
    """Refuse sides that are not those of rows in descending order, each once.

    Raises:
        CorruptIndexError: they are not.
    """
    seen = np.zeros(len(sides), bool)
    positions = sides["position"]
    if (positions < len(sides)).all():
        seen[positions] = True
    if not seen.all():
        raise CorruptIndexError("the sides of the search do not name every row once; rebuild the search of the index")
    bounds = np.stack([sides[name] for name in ("norm", "rest", "error")])
    if not ((bounds >= 0) & np.isfinite(bounds)).all() or (np.diff(bounds[0]) > 0).any():
        raise CorruptIndexError(
            "the sides of the search are not bounds from 0 on, by norms that descend; rebuild the search of the index"
        )
