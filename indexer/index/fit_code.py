"""Fitting a code to a sample of vectors: bits where they buy most.

The score of a query that is distributed like the train vectors errs, through coordinate j, by v_j D_j in the mean
square, with v_j the mean square of the coordinate and D_j the distortion of its code. 4 bits lower D_j from v_j to
D4_j, four more to D8_j. So the first half byte of a coordinate is worth v (v - D4) and the second v (D4 - D8), and the
best halves win: reverse water-filling (Cover and Thomas, *Elements of Information Theory*, 10.3.3) with two steps each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from indexer.errors import BuildError
from indexer.index.code import SCALE_BYTES, Code

CLIPS_4 = (2.5, 2.75, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0)  # of the root mean square: 4 bits clip, so as to step finely
CLIPS_8 = (4.0, 5.0, 6.0, 8.0, 10.0, 12.0)  # and the largest value, which clips nothing
BLOCK_NUMBERS = 2**17  # of the sample at a time: they stay in the cache over all clips


@dataclass(frozen=True, slots=True, eq=False)
class Gains:
    """What bits buy, for each of k coordinates: the gain of the first and second half byte, and the best steps."""

    first: Float64[np.ndarray, " k"]
    second: Float64[np.ndarray, " k"]
    step4: Float64[np.ndarray, " k"]
    step8: Float64[np.ndarray, " k"]


def fit_code(vectors: Float[np.ndarray, "s m"], scales: Float[np.ndarray, " s"], row_bytes: int) -> Code:
    """Return the code that keeps scores best in records of at most `row_bytes`, judged by a sample of vectors."""
    inverse = np.divide(1.0, scales, out=np.zeros(len(scales)), where=scales > 0)[:, None]
    step = max(1, BLOCK_NUMBERS // max(1, len(vectors)))
    starts = range(0, vectors.shape[1], step)
    gains = joined([coordinate_gains(vectors[:, start : start + step] * inverse) for start in starts])
    return code_of(gains, row_bytes)


def coordinate_gains(normalised: Float[np.ndarray, "s k"]) -> Gains:
    """Return the gains of coordinates from a sample of vectors that were divided by their scales.

    A coordinate that is always zero, or so small that float32 has no step for it, gains nothing.
    """
    step = max(1, BLOCK_NUMBERS // max(1, len(normalised)))
    return joined([_block_gains(normalised[:, start : start + step]) for start in range(0, normalised.shape[1], step)])


def joined(gains: Sequence[Gains]) -> Gains:
    """Return the gains of consecutive coordinates as one."""
    return Gains(
        *(np.concatenate([getattr(part, name) for part in gains]) for name in ("first", "second", "step4", "step8"))
    )


def code_of(gains: Gains, row_bytes: int) -> Code:
    """Return the code with the 2 (row_bytes - 4) half bytes that gain most; fewer where no more gain anything.

    Raises:
        BuildError: there is no room for any coordinate.
    """
    if row_bytes <= SCALE_BYTES:
        raise BuildError(
            f"{row_bytes} bytes an example: expected at least {SCALE_BYTES + 1}, a scale of {SCALE_BYTES} bytes and "
            "one for coordinates"
        )
    # equal gains keep their order, and so a first half comes before its second
    both = np.concatenate([gains.first, gains.second])
    best = np.argsort(-both, kind="stable")[: 2 * (row_bytes - SCALE_BYTES)]
    halves = np.bincount(best[both[best] > 0] % len(gains.first), minlength=len(gains.first))
    step = np.choose(halves, [np.zeros(len(halves)), gains.step4, gains.step8])
    return Code((4 * halves).astype(np.uint8), step.astype(np.float32))


def _block_gains(sample: np.ndarray) -> Gains:
    x = np.ascontiguousarray(sample.T, dtype=np.float64)  # a coordinate a row: sums run along memory, in pairs
    v = np.square(x).mean(axis=1)
    root = np.sqrt(v)
    d4, step4 = _best([root * clip / 8 for clip in CLIPS_4], x, 8)
    d8, step8 = _best([*(root * clip / 128 for clip in CLIPS_8), np.abs(x).max(axis=1) / 128], x, 128)
    stored = step8 >= np.finfo(np.float32).tiny
    first = np.where(stored, v * (v - d4), 0).clip(0)
    return Gains(first, np.where(stored, v * (d4 - d8), 0).clip(0, first), step4, step8)


def _best(steps: Sequence[np.ndarray], x: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the least distortion of each coordinate over some steps, and the step that has it."""
    distortions = np.stack([_distortion(x, step, half) for step in steps])
    best = distortions.argmin(axis=0)[None]
    return np.take_along_axis(distortions, best, 0)[0], np.take_along_axis(np.stack(steps), best, 0)[0]


def _distortion(x: np.ndarray, step: np.ndarray, half: int) -> np.ndarray:
    """Return the mean square of x [k, s] less its code's value, for a step [k] and codes of 2 half levels."""
    step = step[:, None]
    levels = np.divide(x, step, out=np.zeros_like(x), where=step > 0)
    np.floor(levels, out=levels)
    np.clip(levels, -half, half - 1, out=levels)
    levels += 0.5
    levels *= step
    levels -= x
    squares: np.ndarray = np.einsum("ks,ks->k", levels, levels)
    means: np.ndarray = squares / x.shape[1]
    return means
