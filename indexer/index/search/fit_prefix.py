"""Making a prefix: the leading directions of a sample of the rows, and every row on them, the longest first.

The directions are those of most energy, uncentred, as products are (`indexer.index.search.prefix`): the eigenvectors
V of the sample's X'X. They are found in float64 and kept so, because a bound is only as good as V'V = 1.
"""

import numpy as np
import safetensors.numpy
from jaxtyping import Float, Float32, Float64, Int64

from indexer.index.code import Code
from indexer.index.fit_code import coordinate_gains
from indexer.index.manifest import CodeEntry, PartEntry, PrefixEntry, VectorsEntry
from indexer.index.objects import Objects
from indexer.index.search.prefix import HIDDEN, SIDES
from indexer.index.store import VectorStore, VectorWriter

SAMPLE = 20_000  # rows that directions and code are fitted on
BLOCK = 4096  # rows that are worked on at a time


def fit_prefix(store: VectorStore, objects: Objects, width: int) -> PrefixEntry:
    """Write the prefix of all rows on so many directions: a byte each, and nothing where no row reaches.

    Rows are read one after the other for their norms, and then in the order of these; a few numbers a row are held in
    memory.
    """
    sample = store.rows(np.linspace(0, len(store) - 1, min(SAMPLE, len(store))).astype(np.int64))
    rotation = _leading_directions(sample, width)
    norms = np.concatenate([np.linalg.norm(rows.astype(np.float64), axis=1) for rows in store])
    code = _fit_code(sample @ rotation, np.linalg.norm(sample.astype(np.float64), axis=1))
    writer = VectorWriter(objects, width, code)
    with objects.writing() as (file, sides):
        order = np.argsort(-norms, kind="stable")
        for first in range(0, len(order), BLOCK):
            positions = order[first : first + BLOCK]
            leading = store.rows(positions).astype(np.float64) @ rotation
            records = code.encode(leading, norms[positions])
            writer.add_stored(records)
            file.write(_sides(positions, norms[positions], leading, code.decode(records)).tobytes())
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


def _leading_directions(sample: Float[np.ndarray, "s m"], width: int) -> Float64[np.ndarray, "m p"]:
    """Return the leading eigenvectors of X'X, summed a block at a time."""
    products = np.zeros((sample.shape[1], sample.shape[1]))
    for first in range(0, len(sample), BLOCK):
        rows = sample[first : first + BLOCK].astype(np.float64)
        products += rows.T @ rows
    vectors: np.ndarray = np.linalg.eigh(products).eigenvectors
    return np.ascontiguousarray(vectors[:, ::-1][:, :width])


def _fit_code(leading: Float64[np.ndarray, "s p"], norms: Float64[np.ndarray, " s"]) -> Code:
    """Return the code of 8 bits for every coordinate that holds anything."""
    inverse = np.divide(1, norms, out=np.zeros(len(norms)), where=norms > 0)
    gains = coordinate_gains(leading * inverse[:, None])
    held = gains.first > 0
    return Code(np.where(held, 8, 0).astype(np.uint8), np.where(held, gains.step8, 0).astype(np.float32))


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
