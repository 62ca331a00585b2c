"""Exact inner-product search over all vectors, proponents and opponents in one call.

opponents(q) are the proponents of -q: both signs go to FAISS as one batch, so every kind of index answers both
directions alike, and nothing is ever sorted out of the far end of a result. FAISS pads what it does not find with id
-1; padding never leaves this file.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import faiss
import numpy as np
from jaxtyping import Float

MOST_TIES = 4096  # a query whose gradient is zero ties with every row: beyond so many, ties are cut by position
MARGIN = 8  # candidates beyond k, so that float32 rounding in the search cannot push a row out of the top k


@dataclass(frozen=True, slots=True)
class Candidates:
    """Positions of one query's candidates, likely best first; at least the top k of each direction."""

    proponents: list[int]
    opponents: list[int]


class FlatSearch:
    """``IndexFlatIP`` over the rows of a store."""

    def __init__(self, shards: Iterable[Float[np.ndarray, "_ m"]], width: int) -> None:
        self._index = faiss.IndexFlatIP(width)
        for shard in shards:
            self._index.add(np.ascontiguousarray(shard, dtype=np.float32))

    def search(self, queries: Float[np.ndarray, "q m"], k: int) -> list[Candidates]:
        """Return candidates for the k proponents and k opponents of every query, ties at the k-th place included."""
        both = np.ascontiguousarray(np.concatenate([queries, -queries]), dtype=np.float32)
        positions, scores = self._wide_enough(both, k)
        found = [
            [int(p) for p, s in zip(ps, ss, strict=True) if p >= 0] for ps, ss in zip(positions, scores, strict=True)
        ]
        half = len(queries)
        return [Candidates(pro, con) for pro, con in zip(found[:half], found[half:], strict=True)]

    def _wide_enough(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Fetch until the last score of every query is below its k-th, so that no tie is cut by chance."""
        fetch, most = min(k + MARGIN, self._index.ntotal), min(k + MOST_TIES, self._index.ntotal)
        while True:
            scores, positions = self._index.search(queries, fetch)
            if fetch >= most or (scores[:, -1] < scores[:, k - 1]).all():
                return positions, scores
            fetch = min(2 * fetch, most)
