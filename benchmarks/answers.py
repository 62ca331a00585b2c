"""Answers of a search held against exact ones: the first k of each direction, and the share of them that is found.

Scores are float64 products of a query with stored vectors, as answers show them. A row counts as found if its exact
score is not below that of the k-th exact one by more than TIE of it: float32 cannot tell such rows apart, nor need it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from indexer.index.search.candidates import Candidates
from indexer.index.store import VectorStore

TIE = 1e-5
MORE = 10  # rows beyond k that are scored in float64: float32 may have put them behind the k-th
CHUNK = 2**24  # numbers of a chunk of rows

Queries = Float32[np.ndarray, "q m"]
SIGNS = (1, -1)  # proponents are the highest scores, opponents those of the negated query


@dataclass(frozen=True, slots=True)
class Found:
    """The first k rows of each direction, best first: positions, and their scores by the sign of the direction."""

    positions: tuple[list[int], list[int]]
    scores: tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]


def first(store: VectorStore, query: Float32[np.ndarray, " m"], candidates: Candidates, k: int) -> Found:
    """Return the first k of the candidates by their stored vectors: the last step of an answer, as `Ask` takes it."""
    both = candidates.proponents + candidates.opponents
    scores = store.rows(both).astype(np.float64) @ query.astype(np.float64)
    cut = len(candidates.proponents)
    pro, con = np.argsort(-scores[:cut], kind="stable")[:k], cut + np.argsort(scores[cut:], kind="stable")[:k]
    return Found(([both[i] for i in pro], [both[i] for i in con]), (scores[pro], -scores[con]))


def exact_bounds(store: VectorStore, queries: Queries, k: int) -> Float64[np.ndarray, "2 q"]:
    """Return the k-th highest score of each query over all rows, and of its negative: every row is multiplied."""
    kept = min(k + MORE, len(store))
    best = [np.full((len(queries), 0), 0, np.float32) for _ in SIGNS]
    where = [np.zeros((len(queries), 0), np.int64) for _ in SIGNS]
    for start, rows in store.chunks(CHUNK):
        scores = queries @ rows.T
        for i, sign in enumerate(SIGNS):
            together = np.concatenate([best[i], sign * scores], axis=1)
            at = np.concatenate([where[i], np.broadcast_to(np.arange(start, start + len(rows)), scores.shape)], axis=1)
            top = np.argpartition(-together, min(kept, together.shape[1]) - 1, axis=1)[:, :kept]
            best[i], where[i] = (np.take_along_axis(of, top, axis=1) for of in (together, at))
    bounds = np.empty((len(SIGNS), len(queries)))
    for i, sign in enumerate(SIGNS):
        for j, query in enumerate(queries):
            scored = sign * (store.rows(where[i][j]).astype(np.float64) @ query.astype(np.float64))
            bounds[i, j] = np.sort(scored)[-min(k, len(store))]
    return bounds


def recall(found: Found, bounds: Float[np.ndarray, " 2"], k: int) -> tuple[float, float]:
    """Return the share of the exact first k that one answer has: proponents, opponents.

    >>> one = Found(([4, 2], [7, 9]), (np.array([5.0, 2.0]), np.array([3.0, 1.0])))
    >>> recall(one, np.array([2.0, 1.5]), k=2)
    (1.0, 0.5)
    """
    shares = [
        float((scores >= bound - TIE * abs(bound)).sum()) / k
        for scores, bound in zip(found.scores, bounds, strict=True)
    ]
    return shares[0], shares[1]
