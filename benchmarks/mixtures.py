"""As many rows as wanted that look like the vectors of an index: random three-way mixtures of them, plus noise.

    row = w_1 a + w_2 b + w_3 c + noise,    w ~ Dirichlet(1, 1, 1), a, b, c any three real rows,
    noise_j ~ N(0, (NOISE s_j)^2),          s_j the standard deviation of coordinate j over the real rows

Gradients have a heavy tail: most examples are learnt and have almost none, and few have most of it. A mixture keeps
the longest of its three rows in view and loses the shortest, and noise lies below all of them: of 60,000 digits the
norms have median 0.18 and 99th percentile 20, of their mixtures 0.75 and 13. So mixtures are kinder than real rows to a
search that clusters, and less kind to one that leaves short rows out: what is measured on them is measured on the real
rows too. Chunks are drawn apart, each from (seed, chunk): any of them can be made again alone.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

CHUNK = 10_000  # rows that are drawn together
NOISE = 0.1  # of a coordinate's standard deviation


def mixture_chunks(
    vectors: Float32[np.ndarray, "n m"], rows: int, seed: int = 0
) -> Iterator[Float32[np.ndarray, "c m"]]:
    """Yield so many rows, CHUNK at a time; fewer rows are the first of more.

    >>> vectors = np.eye(5, dtype=np.float32)
    >>> [chunk.shape for chunk in mixture_chunks(vectors, 25_000)]
    [(10000, 5), (10000, 5), (5000, 5)]
    """
    spread = vectors.std(axis=0, dtype=np.float64).astype(np.float32)
    for start in range(0, rows, CHUNK):
        yield mixture_chunk(vectors, spread, seed, start // CHUNK)[: rows - start]


def mixture_chunk(
    vectors: Float32[np.ndarray, "n m"], spread: Float32[np.ndarray, " m"], seed: int, chunk: int
) -> Float32[np.ndarray, "c m"]:
    """Return one chunk of rows, given how far each coordinate spreads."""
    random = np.random.Generator(np.random.Philox(key=np.array([seed, chunk], dtype=np.uint64)))
    of = random.integers(0, len(vectors), (CHUNK, 3))
    weights = random.dirichlet((1.0, 1.0, 1.0), CHUNK).astype(np.float32)
    rows = random.standard_normal((CHUNK, vectors.shape[1]), dtype=np.float32)
    rows *= np.float32(NOISE) * spread
    for i in range(3):
        rows += weights[:, i : i + 1] * vectors[of[:, i]]
    mixed: np.ndarray = rows
    return mixed
