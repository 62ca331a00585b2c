"""Making a prefix: the leading directions of a sample of the rows, and every row on them, the longest first.

The directions are those of most energy, uncentred, as products are (`indexer.index.search.prefix`): the eigenvectors
V of the sample's X'X. They are found in float64 and kept so, because a bound is only as good as V'V = 1.

Rows may be more than memory holds, and so they are never read in the order of their norms: what is made of them, in
the order in which they are stored, is sorted on the disk.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.numpy
from jaxtyping import Float32, Float64, Int64

from indexer.atomic import TEMPORARY
from indexer.index.code import Code
from indexer.index.fit_code import coordinate_gains
from indexer.index.manifest import CodeEntry, PartEntry, PrefixEntry, VectorsEntry
from indexer.index.objects import Objects
from indexer.index.search.prefix import HIDDEN, SIDES
from indexer.index.store import VectorStore, VectorWriter

SAMPLE = 20_000  # rows that directions and code are fitted on
BLOCK = 4096  # rows that are worked on at a time
RUN = 2**18  # rows that are put in order at a time: 40 MiB of them at 128 directions


def fit_prefix(store: VectorStore, objects: Objects, width: int) -> PrefixEntry:
    """Write the prefix of all rows on so many directions: a byte each, and nothing where no row reaches.

    Rows are read one after the other, for their norms and once more; a few numbers a row are held in memory. Until it
    is done, it takes as much room on the disk again as the prefix has.
    """
    sample = np.linspace(0, len(store) - 1, min(SAMPLE, len(store))).astype(np.int64)
    rotation = _leading_directions(store, sample, width)
    norms = np.concatenate([np.linalg.norm(rows.astype(np.float64), axis=1) for rows in store])
    code = _fit_code(store, sample, rotation, norms[sample])
    writer = VectorWriter(objects, width, code)
    with objects.writing() as (file, sides):
        for rows in _in_order(_made(store, rotation, code, norms), len(store), objects.folder):
            writer.add_stored(np.ascontiguousarray(rows["record"]))
            file.write(rows["sides"].tobytes())
    vectors = VectorsEntry(
        dtype="coded",
        rows=len(store),
        width=width,
        parts=[PartEntry(name="prefix", start=0, stop=width)],
        shards=writer.finish(),
        code=CodeEntry(object=objects.add(code.tensors()), row_bytes=code.row_bytes),
    )
    return PrefixEntry(
        vectors=vectors, rotation=objects.add(safetensors.numpy.save({"rotation": rotation})), sides=sides[0]
    )


def _blocks(store: VectorStore, positions: Int64[np.ndarray, " s"]) -> Iterator[Float64[np.ndarray, "b m"]]:
    """Yield the vectors at some positions in float64: together they would be the most that a fit holds."""
    for first in range(0, len(positions), BLOCK):
        yield store.rows(positions[first : first + BLOCK]).astype(np.float64)


def _leading_directions(store: VectorStore, sample: Int64[np.ndarray, " s"], width: int) -> Float64[np.ndarray, "m p"]:
    """Return the leading eigenvectors of X'X, summed a block at a time."""
    products = np.zeros((store.width, store.width))
    for rows in _blocks(store, sample):
        products += rows.T @ rows
    vectors: np.ndarray = np.linalg.eigh(products).eigenvectors
    return np.ascontiguousarray(vectors[:, ::-1][:, :width])


def _fit_code(
    store: VectorStore,
    sample: Int64[np.ndarray, " s"],
    rotation: Float64[np.ndarray, "m p"],
    norms: Float64[np.ndarray, " s"],
) -> Code:
    """Return the code of 8 bits for every coordinate that holds anything."""
    leading = np.concatenate([rows @ rotation for rows in _blocks(store, sample)])
    inverse = np.divide(1, norms, out=np.zeros(len(norms)), where=norms > 0)
    gains = coordinate_gains(leading * inverse[:, None])
    held = gains.first > 0
    return Code(np.where(held, 8, 0).astype(np.uint8), np.where(held, gains.step8, 0).astype(np.float32))


def _made(
    store: VectorStore, rotation: Float64[np.ndarray, "m p"], code: Code, norms: Float64[np.ndarray, " n"]
) -> Iterator[np.ndarray]:
    """Yield the place of every row among all, longest first, its record and its sides; in the order of the store."""
    places = np.empty(len(norms), np.int64)
    places[np.argsort(-norms, kind="stable")] = np.arange(len(norms))
    kind = np.dtype([("place", "<i8"), ("record", np.uint8, (code.row_bytes,)), ("sides", SIDES)])
    for start, vectors in store.chunks(BLOCK * store.width):
        positions = np.arange(start, start + len(vectors))
        leading = vectors.astype(np.float64) @ rotation
        rows = np.empty(len(vectors), kind)
        rows["place"] = places[positions]
        rows["record"] = code.encode(leading, norms[positions])
        rows["sides"] = _sides(positions, norms[positions], leading, code.decode(rows["record"]))
        yield rows


def _in_order(made: Iterator[np.ndarray], count: int, folder: Path) -> Iterator[np.ndarray]:
    """Yield so many rows by their place, a run after the other, each of which was gathered in a part of a file."""
    filled = np.zeros(-(-count // RUN), np.int64)
    with tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY) as file:
        for rows in made:
            ascending = rows[np.argsort(rows["place"])]
            runs, firsts = np.unique(ascending["place"] // RUN, return_index=True)
            for run, some in zip(runs.tolist(), np.split(ascending, firsts[1:]), strict=True):
                file.seek((run * RUN + int(filled[run])) * rows.itemsize)
                file.write(some.tobytes())
                filled[run] += len(some)
        for first in range(0, count, RUN):
            file.seek(first * rows.itemsize)
            found = np.frombuffer(file.read(min(RUN, count - first) * rows.itemsize), rows.dtype)
            yield found[np.argsort(found["place"])]


def _sides(
    positions: Int64[np.ndarray, " b"],
    norms: Float64[np.ndarray, " b"],
    leading: Float64[np.ndarray, "b p"],
    coded: Float32[np.ndarray, "b p"],
) -> np.ndarray:
    """Return the sides of rows, every bound rounded up to float32."""
    sides = np.empty(len(positions), SIDES)
    sides["position"] = positions
    rest = np.sqrt(np.maximum(0, norms**2 - np.einsum("bp,bp->b", leading, leading))) + HIDDEN * norms
    error = np.linalg.norm(leading - coded, axis=1)
    for name, bound in (("norm", norms), ("rest", rest), ("error", error)):
        sides[name] = np.nextafter(bound.astype(np.float32), np.float32(np.inf))
    return sides
