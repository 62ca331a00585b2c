"""How well the scores of an index agree with exact ones: the figures of its card.

For every query z' there are exact scores s [n] and the index's own e [n]; a query that is a training row leaves itself
out of both.

* recall@k: of the k rows that e puts first, the share whose exact score is among the first k of s; a row that ties
  with the exact k-th counts. Mean over queries; opponents are the proponents of -s and -e. k is at most the number of
  rows: with 100 rows or fewer, recall@100 is of all of them, and 1.
* Pearson: over all pairs (s, e) of all queries. Queries with large gradients weigh most, as in a search over all.
* Spearman: the rank correlation within each query, equal scores at their mean rank; mean over queries.
* error: quantiles over all pairs of |e - s| over the RMS of s of its query.
* reference: quantiles of e over all queries and rows, close enough together in both tails for a percentile there.

What has no value stays out and is never NaN: a query whose exact scores are all zero has no error, one whose scores are
all equal on either side no rank correlation, and where nothing is left there is None or nothing. Intervals are from
``indexer.building.bootstrap``. One query is worked on at a time; two arrays of all pairs are made for the quantiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from indexer.building.bootstrap import CONFIDENCE, Measured, correlation, mean
from indexer.errors import BuildError
from indexer.index.card import CardEntry, ErrorEntry, RecallEntry, ReferenceEntry

FEW, MANY = 10, 100
TIE = 1e-5  # of the exact k-th score: as near as this, float32 does not tell which of two rows comes first
ERROR_SHARES = (0.5, 0.9, 0.99, 1.0)
LEVELS = 199  # of the reference, without its ends: beside each other they are 15% apart in odds, or less
RAREST = 1e-6  # share of scores that the reference resolves, where it has as many


@dataclass(frozen=True, slots=True)
class Recalls:
    """recall@10 and recall@100 of one direction."""

    at_10: Measured
    at_100: Measured


@dataclass(frozen=True, slots=True)
class Agreement:
    """The figures of q queries against n rows, as the head of this file defines them.

    errors: (share, error that so many do not exceed). reference: shares, strictly increasing from 0 to 1, and scores.
    """

    queries: int
    rows: int
    proponents: Recalls
    opponents: Recalls
    pearson: Measured | None
    spearman: Measured | None
    errors: tuple[tuple[float, float], ...]
    reference: tuple[tuple[float, ...], tuple[float, ...]]


def agreement(
    exact: Float[np.ndarray, "q n"], estimate: Float[np.ndarray, "q n"], left_out: Sequence[int | None]
) -> Agreement:
    """Compare the scores of an index with exact ones.

    left_out: for each query the row that is the query itself, or None.

    Raises:
        BuildError: a score is not finite, or a query has no row but itself.
    """
    queries, rows = exact.shape
    assert len(left_out) == queries, f"expected {queries} entries of left_out, found {len(left_out)}"
    found = np.empty((4, queries))
    moments, ranks = np.empty((queries, 6)), []
    pairs = queries * rows - sum(row is not None for row in left_out)
    errors, scores, scaled, seen = np.empty(pairs, exact.dtype), np.empty(pairs, estimate.dtype), 0, 0
    origins = [_origin(exact), _origin(estimate)]
    for i, row in enumerate(left_out):
        s, e = _without(exact[i], row, i), _without(estimate[i], row, i)
        found[:2, i], found[2:, i] = _recalls(s, e), _recalls(-s, -e)
        moments[i] = _moments(*((one - shift) / size for one, (shift, size) in zip((s, e), origins, strict=True)))
        ranks += _rank_correlation(s, e)
        scores[seen : seen + len(e)] = e
        seen += len(e)
        rms = np.sqrt(np.square(s).mean())
        if rms > 0:
            errors[scaled : scaled + len(e)] = np.abs(e - s) / rms
            scaled += len(e)
    few, many, few_opposed, many_opposed = map(mean, found)
    return Agreement(
        queries=queries,
        rows=rows,
        proponents=Recalls(few, many),
        opponents=Recalls(few_opposed, many_opposed),
        pearson=correlation(moments),
        spearman=mean(np.array(ranks)) if ranks else None,
        errors=_errors(errors[:scaled]),
        reference=_reference(scores),
    )


def card_entry(
    figures: Agreement, *, source: Literal["test", "train"], bytes_per_example: float, basis_bytes: int
) -> CardEntry:
    """Return the card as the manifest keeps it."""
    pearson, spearman = figures.pearson, figures.spearman
    shares, scores = figures.reference
    return CardEntry(
        queries=figures.queries,
        source=source,
        rows=figures.rows,
        confidence=CONFIDENCE,
        proponents=_recall_entry(figures.proponents),
        opponents=_recall_entry(figures.opponents),
        pearson=None if pearson is None else pearson.value,
        pearson_interval=None if pearson is None else pearson.interval,
        spearman=None if spearman is None else spearman.value,
        spearman_interval=None if spearman is None else spearman.interval,
        error=tuple(ErrorEntry(share=share, of_rms=error) for share, error in figures.errors),
        reference=ReferenceEntry(shares=shares, scores=scores),
        bytes_per_example=bytes_per_example,
        basis_bytes=basis_bytes,
    )


def _recall_entry(recalls: Recalls) -> RecallEntry:
    return RecallEntry(
        recall_at_10=recalls.at_10.value,
        recall_at_10_interval=recalls.at_10.interval,
        recall_at_100=recalls.at_100.value,
        recall_at_100_interval=recalls.at_100.interval,
    )


def _without(scores: Float[np.ndarray, " n"], row: int | None, query: int) -> Float[np.ndarray, " m"]:
    """Return the scores of one query in float64, without those of its own row.

    Raises:
        BuildError: one is not finite, or none is left.
    """
    kept = np.asarray(scores, np.float64) if row is None else np.delete(scores, row).astype(np.float64)
    if not len(kept):
        raise BuildError(f"query {query} of the index card has no training row but itself; expected at least one other")
    if not np.isfinite(kept).all():
        raise BuildError(
            f"a score of query {query} of the index card is not finite; look for examples whose loss or gradient is "
            "infinite at a checkpoint"
        )
    return kept


def _origin(scores: Float[np.ndarray, "q n"]) -> tuple[float, float]:
    """Return the mean of all scores and their largest distance from it: sums of squares about it do not cancel."""
    middle = float(scores.mean(dtype=np.float64))
    size = max(float(scores.max()) - middle, middle - float(scores.min()))
    return middle, size or 1.0


def _recalls(exact: Float[np.ndarray, " n"], estimate: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Return recall@10 and recall@100 of the highest scores."""
    best, found = exact[_first(exact, MANY)], exact[_first(estimate, MANY)]
    few, many = (
        float((found[:k] >= best[:k][-1] - TIE * abs(best[:k][-1])).mean()) for k in (min(FEW, len(best)), len(best))
    )
    return few, many


def _first(scores: Float[np.ndarray, " n"], k: int) -> Int[np.ndarray, " k"]:
    """Return the positions of the k highest scores, best first; equal scores in the order of their rows."""
    k = min(k, len(scores))
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > least)
    chosen = np.concatenate([above, np.flatnonzero(scores == least)[: k - len(above)]])
    return np.asarray(chosen[np.lexsort((chosen, -scores[chosen]))])


def _moments(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " 6"]:
    """Return the count and the sums of x, y, x², y² and x y; not by BLAS, whose sums depend on its threads."""
    return np.array([len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])


def _rank_correlation(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> list[float]:
    """Return Spearman's correlation, or nothing where one side is constant."""
    left, right = _ranks(x), _ranks(y)
    size = np.sqrt(np.square(left).sum() * np.square(right).sum())
    return [float(((left * right).sum() / size).clip(-1, 1))] if size > 0 else []


def _ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return ranks about their middle; equal values have their mean rank.

    >>> _ranks(np.array([7.0, 5.0, 7.0])).tolist()
    [0.5, -1.0, 0.5]
    """
    order = values.argsort(kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    counts = np.diff(np.append(starts, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (counts - 1) / 2 - (len(values) - 1) / 2, counts)
    return ranks


def _errors(errors: Float[np.ndarray, " p"]) -> tuple[tuple[float, float], ...]:
    """Return the quantiles of the errors, which are put in order."""
    if not len(errors):
        return ()
    errors.sort()
    return tuple(zip(ERROR_SHARES, _quantiles(errors, np.array(ERROR_SHARES)), strict=True))


def _reference(scores: Float[np.ndarray, " p"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return shares and the scores below which they lie; the scores are put in order.

    The shares are even in log-odds from 1 in p, or 1 in a million, to as near to 1, and 0 and 1 themselves.
    """
    rarest = min(max(1 / len(scores), RAREST), 0.5)
    widest = np.log(1 / rarest - 1)
    levels = 1 / (1 + np.exp(-np.linspace(-widest, widest, LEVELS)))
    shares = np.unique(np.concatenate([[0.0], levels, [1.0]]))
    scores.sort()
    return tuple(shares.tolist()), _quantiles(scores, shares)


def _quantiles(ordered: Float[np.ndarray, " p"], shares: Float[np.ndarray, " s"]) -> tuple[float, ...]:
    """Return the numbers at these shares of the way from the first to the last one, linear between neighbours."""
    places = shares * (len(ordered) - 1)
    below = np.floor(places).astype(int)
    low, high = (ordered[at].astype(np.float64) for at in (below, np.minimum(below + 1, len(ordered) - 1)))
    return tuple(np.maximum.accumulate(low + (high - low) * (places - below)).tolist())
