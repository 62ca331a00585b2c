"""Which rows can be among the first k of a direction, as far as bounds say: the others need not be looked at.

A row whose product is at most `upper` is out when k others have more. So the true products of a few rows that look best
give a threshold, the k-th highest of them, that all others have to reach. It rises as rows are read.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from indexer.index.search.prefix import Prefix

SEEDS = 2  # times k rows have their true products worked out; the k-th of these is hardly below that of all
RISE = 8  # thresholds are worked out after the first chunk that counts, and after so many times as many
MANY = 4000  # rows; where more are left, at the end too: to compare fewer takes less than to raise a threshold

Products = Callable[[Int64[np.ndarray, " r"]], Float64[np.ndarray, " r"]]  # of the query with the rows at positions


def survivors(
    prefix: Prefix,
    query: Float[np.ndarray, " m"],
    k: int,
    products: Products,
    rows: Bool[np.ndarray, " n"] | None,
) -> tuple["End", "End"]:
    """Read rows until no other can be among the first k of either direction, and return those that can.

    products: worked out of few rows only. rows: those that may be answered, None for all.
    """
    ends = (End(1, k), End(-1, k))
    rise, read, last = 1, 0, 0
    for chunk in prefix.bounded(query):
        if chunk.most < min(end.threshold for end in ends):
            break
        places = np.arange(chunk.first, chunk.first + len(chunk.estimates))
        estimates, slack = chunk.estimates, chunk.slack
        if rows is not None:
            allowed = np.flatnonzero(rows[prefix.positions(places)])
            if not len(allowed):
                continue
            places, estimates, slack = places[allowed], estimates[allowed], slack[allowed]
        read += 1
        for end in ends:
            end.add(places, estimates, slack)
        if read == rise:
            _raise(ends, prefix, products)
            rise, last = rise * RISE, read
    if read > last and max(end.held for end in ends) > MANY:
        _raise(ends, prefix, products)
    return ends


def _raise(ends: tuple["End", "End"], prefix: Prefix, products: Products) -> None:
    """Raise both thresholds by the true products of the rows that look best, all read together."""
    places = [end.left(SEEDS * end.k)[0] for end in ends]
    found = products(prefix.positions(np.concatenate(places)))
    for end, some in zip(ends, np.split(found, [len(places[0])]), strict=True):
        end.learn(some)


class End:
    """One direction of a query: rows that can be among its first k. sign: 1 for proponents, -1 for opponents."""

    def __init__(self, sign: int, k: int) -> None:
        self.sign = sign
        self.k = k
        self.threshold = -np.inf
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    @property
    def held(self) -> int:
        """Rows that were taken and could be among the first k when they were."""
        return sum(len(places) for places, _, _ in self._parts)

    def add(
        self,
        places: Int64[np.ndarray, " c"],
        estimates: Float32[np.ndarray, " c"],
        slack: Float32[np.ndarray, " c"],
    ) -> None:
        """Take rows, by their places, with estimates of their products that are within a slack."""
        upper = slack + estimates if self.sign > 0 else slack - estimates
        hopeful = np.flatnonzero(~(upper < self.threshold))  # what is no number may be anything
        self._parts.append((places[hopeful], self.sign * estimates[hopeful], upper[hopeful]))

    def learn(self, products: Float64[np.ndarray, " r"]) -> None:
        """Raise the threshold by the true products of some rows."""
        if len(products) >= self.k:
            signed = self.sign * products
            self.threshold = max(self.threshold, float(np.partition(signed, -self.k)[-self.k]))

    def left(self, most: int) -> tuple[Int64[np.ndarray, " r"], bool]:
        """Return the places of rows that can still be among the first k, and whether these are all.

        If they are too many, they are those that look best.
        """
        if not self._parts:
            return np.empty(0, np.int64), True
        places, signed, upper = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        hopeful = ~(upper < self.threshold)
        places, signed = places[hopeful], signed[hopeful]
        if len(places) <= most:
            return places, True
        return places[np.argpartition(-signed, most - 1)[:most]], False
