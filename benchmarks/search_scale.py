"""How fast a million rows are searched, and what is found: the index's search beside a plain scan by FAISS.

    OMP_NUM_THREADS=1 PROPONENT_DATA=data python -m benchmarks.search_scale --rows 1000000 --work work

The base is ``faiss.IndexFlatIP.search([q, -q], 10)`` over the vectors that are stored, as float32, without coordinates
that have no bits. Ours is `Search.search` and then the float64 scores of its candidates and their order, the last step
of an answer, which the base does not take. Both have one thread and answer the same question in turn, and every
question a few times, rounds apart: its median counts, so that percentiles are of questions and not of what else the
machine does. "Faster" is over the questions that both were asked.

Questions are test digits: one half tuned the search, the other half is asked. Rows are the 60,000 real ones and
mixtures of them (`benchmarks.mixtures`). A row is found if its exact score is not below the tenth by more than 1e-5 of
it. Exit status 1 where the mixtures miss a bar.
"""

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import torch

from benchmarks.answers import Queries, exact_bounds, first, recall
from benchmarks.fit_stage import Fit, fit_apart, fitted_search, search_entry, stage_bytes
from benchmarks.scale_data import SHARD_ROWS, Stored, asked_half, mixtures, questions, real_rows, tuning_half
from indexer.index.search.candidates import Search
from indexer.index.store import VectorStore

K = 10
FASTER, RECALL = 20.0, 0.99  # the bars
WARM = 50  # questions of those that tuned, before anything is timed
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of each question: FAISS on the first of them, ours with the scores, and the search in it alone."""

    flat: Sequence[float]
    ours: Sequence[float]
    search: Sequence[float]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one set of rows gave. recall: by direction. proven: the share of answers that say they miss nothing."""

    name: str
    rows: int
    times: Timed
    recall: tuple[float, float]
    proven: float
    fit: Fit
    bytes_per_row: tuple[float, float]  # of the vectors, and of the search

    @property
    def faster(self) -> tuple[float, float]:
        """How many times faster than FAISS: p50 and p99, each over the same of FAISS."""
        return ratios(self.times)

    @property
    def passes(self) -> bool:
        """Whether both bars are met."""
        return min(self.faster) >= FASTER and min(self.recall) >= RECALL


def ratios(times: Timed) -> tuple[float, float]:
    """Return p50 and p99 of FAISS over ours, on the questions that both were asked.

    >>> ratios(Timed([4.0, 6.0, 8.0], [2.0, 2.0, 2.0, 99.0], []))[0]
    3.0
    """
    flat, ours = percentiles(times.flat), percentiles(times.ours[: len(times.flat)])
    return flat[0] / ours[0], flat[1] / ours[1]


def flat_index(store: VectorStore) -> faiss.IndexFlatIP:
    """Return FAISS's own scan over the stored coordinates, in coded order."""
    assert store.code is not None
    index = faiss.IndexFlatIP(len(store.code.order))
    for _, records in store.pieces(SHARD_ROWS):
        index.add(store.code.values(records))
    return index


def timed(store: VectorStore, search: Search, queries: Queries, faiss_queries: int, rounds: int) -> Timed:
    """Ask all questions in every round, the first so many of both in turn; the median of its rounds is a question's."""
    assert store.code is not None
    flat, short = flat_index(store), np.ascontiguousarray(queries[:, store.code.order])
    seconds = np.full((3, rounds, len(queries)), np.nan)
    for turn, (i, query) in itertools.product(range(rounds), enumerate(queries)):
        if i < faiss_queries:
            both = np.stack([short[i], -short[i]])
            start = time.perf_counter()
            flat.search(both, K)
            seconds[0, turn, i] = time.perf_counter() - start
        start = time.perf_counter()
        [candidates] = search.search(query[None], K)
        seconds[2, turn, i] = time.perf_counter() - start
        first(store, query, candidates, K)
        seconds[1, turn, i] = time.perf_counter() - start
    of_faiss, ours, alone = np.median(seconds, axis=1).tolist()
    return Timed(of_faiss[:faiss_queries], ours, alone)


def measure(name: str, stored: Stored, queries: Queries, fit: Fit, faiss_queries: int, rounds: int) -> Measured:
    """Time and count one set of rows, whose search was fitted."""
    store, asked = stored.open(), asked_half(queries)
    search = fitted_search(stored, store)
    for query in tuning_half(queries)[:WARM]:
        search.search(query[None], K)
    times = timed(store, search, asked, faiss_queries, rounds)
    bounds, shares, proven = exact_bounds(store, asked, K), [], []
    for query, bound in zip(asked, bounds.T, strict=True):
        [candidates] = search.search(query[None], K)
        shares.append(recall(first(store, query, candidates, K), bound, K))
        proven.append(candidates.exhaustive)
    pro, con = (statistics.mean(direction) for direction in zip(*shares, strict=True))
    bytes_per_row = (store.row_bytes, stage_bytes(search_entry(stored)) / len(store))
    return Measured(name, len(store), times, (pro, con), statistics.mean(proven), fit, bytes_per_row)


def table(measured: Sequence[Measured]) -> str:
    """Return the Markdown table: milliseconds as p50 / p99, recall as proponents / opponents."""
    columns = ["rows", "FAISS flat", "ours", "its search alone", "faster", "recall@10", "proven", "fit"]
    columns += ["memory of the fit", "bytes a row: vectors + search"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one in measured:
        p50, p99 = one.faster
        cells = [f"{one.rows:,} {one.name}", *map(_milliseconds, (one.times.flat, one.times.ours, one.times.search))]
        cells += [f"{p50:.1f} / {p99:.1f}", f"{one.recall[0]:.4f} / {one.recall[1]:.4f}", f"{one.proven:.1%}"]
        cells += [f"{one.fit.seconds:.0f} s", f"{one.fit.anonymous / MIB:,.0f} MiB"]
        cells += [f"{one.bytes_per_row[0]:.0f} + {one.bytes_per_row[1]:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds."""
    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
    return float(p50), float(p99)


def _milliseconds(seconds: Sequence[float]) -> str:
    return "{:.2f} / {:.2f} ms".format(*percentiles(seconds))


def one_thread() -> None:
    """See to it that everything has one thread.

    Raises:
        SystemExit: the environment allows more.
    """
    if os.environ.get("OMP_NUM_THREADS") != "1":  # NumPy's BLAS reads it once, when it is imported
        raise SystemExit("times are those of one thread: set OMP_NUM_THREADS=1")
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit status 1 where the mixtures miss a bar."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of mixtures")
    parser.add_argument("--faiss", type=int, default=200, help="questions that FAISS is asked too")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is asked")
    parser.add_argument("--work", type=Path, required=True, help="a folder that keeps what is made")
    options = parser.parse_args(arguments)
    one_thread()
    data, work = Path(os.environ.get("PROPONENT_DATA", "data")), options.work
    real = real_rows(data, work, _note)
    queries = questions(data, work)
    sets = {"real": real, "mixtures": mixtures(real, options.rows, work)}
    measured = []
    for name, stored in sets.items():
        fit = fit_apart(stored, work / "queries.npy")
        measured.append(measure(name, stored, queries, fit, options.faiss, options.rounds))
        print(f"\n{table(measured[-1:])}", flush=True)
    print(f"\n{table(measured)}")
    return 0 if measured[-1].passes else 1


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
