"""Where a score stands among the scores of its index: a percentile in the reference sample of the index card."""

from bisect import bisect_left

from indexer.index.card import ReferenceEntry

DIGITS = 4  # of a percentile: the reference resolves one score in a million and no less


def percentile(score: float, reference: ReferenceEntry) -> float:
    """Return the percentage of the reference sample that lies below a score, from 0 to 100.

    Between two scores of the reference it is linear. A score that several of them equal has the lowest percentage: the
    others do not lie below it.

    >>> sample = ReferenceEntry(shares=(0.0, 0.5, 1.0), scores=(-2.0, 0.0, 4.0))
    >>> [percentile(score, sample) for score in (-3.0, -1.0, 0.0, 3.0, 9.0)]
    [0.0, 25.0, 50.0, 87.5, 100.0]
    """
    scores, shares = reference.scores, reference.shares
    above = bisect_left(scores, score)
    if above == len(scores):
        return 100.0
    if above == 0:
        return round(100 * shares[0], DIGITS)
    low, high = scores[above - 1], scores[above]
    part = (score - low) / (high - low)
    return round(100 * (shares[above - 1] + part * (shares[above] - shares[above - 1])), DIGITS)
