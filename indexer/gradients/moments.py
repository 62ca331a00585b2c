"""The second moments of a block's gradients, seen from either side, without ever forming more than they must.

    left   A = sum over examples i of w_i g_i g_i'     [m, m]
    right  A = sum over examples i of w_i g_i' g_i     [n, n]

Their leading eigenvectors are the best basis for that side: the mode-wise bases of a higher-order SVD (De Lathauwer et
al. 2000). A is asked for times a thin matrix where the side is too long for A itself.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from indexer.gradients.block import BlockGradient, FactorGradient, gram
from indexer.gradients.uses import Lefts, UnitVectors

Side = Literal["left", "right"]


def moment_times(
    gradient: BlockGradient, side: Side, weights: Float[Tensor, " b"], matrix: Float[Tensor, "s k"] | None
) -> Float[Tensor, "s k"]:
    """Return A times a matrix, or A itself for None; weights: w of every example."""
    if isinstance(gradient, FactorGradient) and not gradient.dense_is_cheaper:
        total, start = None, 0
        for part in gradient.in_chunks():
            found = _of_factors(part, side, weights[start : start + part.batch], matrix)
            total, start = found if total is None else total + found, start + part.batch
    else:
        total, start = None, 0
        for formed in gradient.formed():
            b = len(formed.values)
            found = _of_values(formed.values, side, weights[start : start + b], matrix)
            total, start = found if total is None else total + found, start + b
    assert total is not None, "a batch has at least one example"
    return total


def _of_values(values: Float[Tensor, "b m n"], side: Side, weights: Tensor, matrix: Tensor | None) -> Tensor:
    """One product over all columns (rows) of all examples, or two thin ones."""
    rows = (values.permute(1, 0, 2) if side == "left" else values.permute(2, 0, 1)).flatten(1)  # [side, b * other]
    weighted = rows * weights.repeat_interleave(rows.shape[1] // len(weights))
    return weighted @ rows.T if matrix is None else weighted @ (rows.T @ matrix)


def _of_factors(gradient: FactorGradient, side: Side, weights: Tensor, matrix: Tensor | None) -> Tensor:
    """g g' = sum over positions t, s of left_t <right_t, right_s> left_s', of all pairs of uses."""
    pairs = [use.pairs() for use in gradient.uses]
    here: list[Lefts] = [left if side == "left" else right for left, right in pairs]
    other: list[Lefts] = [right if side == "left" else left for left, right in pairs]
    dtype = next(factors.dtype for pair in pairs for factors in pair if isinstance(factors, Tensor))
    thin = [_times(factors, matrix, dtype) for factors in here]
    total = None
    for i, factors in enumerate(here):
        mixed = sum(gram(other[i], other[j]).to(dtype) @ thin[j] for j in range(len(here)))
        found = _scattered(factors, weights[:, None, None] * mixed)
        total = found if total is None else total + found
    assert total is not None
    return total


def _times(factors: Lefts, matrix: Tensor | None, dtype: torch.dtype) -> Float[Tensor, "b t k"]:
    if isinstance(factors, UnitVectors):
        return factors.dense(dtype) if matrix is None else matrix[factors.ids]
    return factors if matrix is None else factors @ matrix


def _scattered(factors: Lefts, rows: Float[Tensor, "b t k"]) -> Float[Tensor, "s k"]:
    """Return the sum over examples and positions of factor times row'."""
    if isinstance(factors, UnitVectors):
        found = rows.new_zeros(factors.m, rows.shape[2])
        return found.index_add(0, factors.ids.flatten(), rows.flatten(0, 1))
    return factors.flatten(0, 1).T @ rows.flatten(0, 1)
