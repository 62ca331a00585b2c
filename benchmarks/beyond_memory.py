"""An index that is larger than the memory it may have: how long an answer takes, and what its search is fitted in.

    OMP_NUM_THREADS=1 PROPONENT_DATA=data python -m benchmarks.beyond_memory --work work --group /sys/fs/cgroup/memory

Rows are mixtures (`benchmarks.mixtures`), questions test digits. Fitting and asking each run in a process of their own,
in a memory group with a limit that counts pages of files, and ask once more without one. *Cold* means that nothing of
the index was in memory before the question: every page is dropped before it. *Warm* is the questions after those that
warm up; with a limit, that is what is left of them in so little memory. An answer is the search and the float64 scores
of its candidates. Without --group the limited runs are left out.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson

from benchmarks.answers import Queries, first
from benchmarks.fit_stage import Wrapped, fit_apart, fitted_search, search_entry, stage_bytes
from benchmarks.page_cache import forget, memory_group
from benchmarks.resources import memory_of, read_from_disk, watched
from benchmarks.scale_data import Stored, asked_half, mixtures, questions, read_stored, real_rows, tuning_half
from benchmarks.search_scale import K, one_thread

WARM = 100  # questions before those that count as warm
ASKED, COLD = 200, 20
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Asked:
    """Answers one after the other: seconds, bytes from disk and pages waited for of each; then what is resident."""

    opening: float
    seconds: list[float]
    read: list[int]
    faults: list[int]
    anonymous: int
    mapped: int


def ask(stored: Stored, queries: Queries, cold: bool) -> Asked:
    """Answer questions; cold: with nothing of the index in memory before each."""
    start = time.perf_counter()
    store = stored.open()
    search = fitted_search(stored, store)
    opening, seconds, read, faults = time.perf_counter() - start, [], [], []
    for query in queries:
        if cold:
            forget(stored.objects.folder)
        disk, waited, start = read_from_disk(), _faults(), time.perf_counter()
        [candidates] = search.search(query[None], K)
        first(store, query, candidates, K)
        seconds.append(time.perf_counter() - start)
        read.append(read_from_disk() - disk)
        faults.append(_faults() - waited)
    memory = memory_of()
    return Asked(opening, seconds, read, faults, memory["RssAnon"], memory["RssFile"])


def asked_apart(stored: Stored, queries: Path, wrapped: Wrapped, *, cold: bool) -> Asked:
    """Ask in a child process; wrapped: what puts its command where it is to run."""
    command = [sys.executable, "-m", "benchmarks.beyond_memory", "--ask", str(stored.folder), "--queries", str(queries)]
    return Asked(**orjson.loads(watched(wrapped([*command, *(["--cold"] if cold else [])])).said))


def line(name: str, asked: Asked, counted: slice) -> str:
    """Return a line of the table, of some of the questions."""
    p50, p99 = 1e3 * np.percentile(asked.seconds[counted], [50, 99])
    read, faults = (float(np.median(of[counted])) for of in (asked.read, asked.faults))
    cells = [name, f"{asked.opening:.1f} s", f"{p50:.1f} / {p99:.1f} ms", f"{read / MIB:.2f} MiB", f"{faults:,.0f}"]
    cells += [f"{asked.anonymous / MIB:,.0f} MiB", f"{asked.mapped / MIB:,.0f} MiB"]
    return f"| {' | '.join(cells)} |"


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def report(stored: Stored, queries: Path, limit: int, limited: Wrapped | None) -> None:
    """Print what the search was fitted in, and the table of answers; limited: runs commands in less memory."""
    forget(stored.objects.folder)
    fit = fit_apart(stored, queries, limited or list)
    entry = stored.entry
    assert entry.code is not None
    sizes = entry.rows * entry.code.row_bytes / MIB, stage_bytes(search_entry(stored)) / MIB
    print(f"{entry.rows:,} rows: {sizes[0]:,.0f} MiB of vectors, {sizes[1]:,.0f} MiB of search; limit {limit:,} MiB")
    print(
        f"fitted in {fit.seconds:,.0f} s, {fit.anonymous / MIB:,.0f} MiB beside the {fit.idle / MIB:,.0f} of imports\n"
    )
    columns = ["", "opening", "an answer, p50 / p99", "read", "pages waited for", "own memory", "mapped"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for where, wrapped in (("no limit", list), (f"{limit:,} MiB", limited)):
        if wrapped is not None:
            warm = asked_apart(stored, queries, wrapped, cold=False)
            print(line(f"{where}, warm", warm, slice(WARM, None)), flush=True)
            print(line(f"{where}, cold", asked_apart(stored, queries, wrapped, cold=True), slice(None)), flush=True)


def _answer(folder: Path, queries: Queries, cold: bool) -> None:
    """Answer and print JSON: what the child process does."""
    warm = np.concatenate([tuning_half(queries)[:WARM], asked_half(queries)[:ASKED]])
    asked = ask(read_stored(folder), asked_half(queries)[:COLD] if cold else warm, cold)
    print(orjson.dumps(asdict(asked)).decode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was fitted in how much memory, and the table of answers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--work", type=Path, default=Path("work"), help="a folder that keeps what is made")
    parser.add_argument("--rows", type=int, default=4_000_000, help="of mixtures")
    parser.add_argument("--limit", type=int, default=1024, help="MiB, with the interpreter and pages of files")
    parser.add_argument("--group", type=Path, help="a folder of memory groups, in which one more may be made")
    parser.add_argument("--ask", type=Path, help="only answer what --queries holds, and print JSON")
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args(arguments)
    one_thread()
    if options.ask is not None:
        _answer(options.ask, np.load(options.queries), options.cold)
        return 0
    data, work = Path(os.environ.get("PROPONENT_DATA", "data")), options.work
    real = real_rows(data, work, _note)
    questions(data, work)
    stored, queries = mixtures(real, options.rows, work), work / "queries.npy"
    if options.group is None:
        report(stored, queries, options.limit, None)
        return 0
    with memory_group(options.group, options.limit * MIB) as group:
        report(stored, queries, options.limit, group.command)
    return 0


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
