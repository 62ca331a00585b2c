"""Fits the search of stored vectors in a process of its own, so that what it takes can be watched.

    python -m benchmarks.fit_stage work/mixtures-1000000-seed-0 work/queries.npy

The folder holds vectors.json and objects (`benchmarks.scale_data`); search.json keeps what was found. One thread.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import faiss
import numpy as np
import orjson
import torch

from benchmarks.answers import Queries
from benchmarks.resources import watched
from benchmarks.scale_data import Stored, read_stored, tuning_half
from indexer.atomic import write_atomically
from indexer.index.manifest import SearchEntry
from indexer.index.search.candidates import Search
from indexer.index.search.fit import fit_search
from indexer.index.search.opening import open_search
from indexer.index.store import VectorStore

KEPT, TOOK = "search.json", "fit.json"

Wrapped = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True, slots=True)
class Fit:
    """What a fit took: seconds without those of imports, and memory in bytes.

    anonymous, mapped: the most of its own, and of files, beyond what the imports leave. idle: what they leave.
    """

    seconds: float
    anonymous: int
    mapped: int
    idle: int


def fit_apart(stored: Stored, queries: Path, wrapped: Wrapped = list) -> Fit:
    """Fit in a child process where that was not done before, and return what it took.

    wrapped: what makes of its command one that runs where it is to run.
    """
    kept = stored.folder / TOOK
    if not kept.is_file():
        command = [sys.executable, "-m", "benchmarks.fit_stage", str(stored.folder), str(queries)]
        idle, used = watched([*command, "--nothing"]), watched(wrapped(command))
        beyond = max(0, used.anonymous - idle.anonymous), max(0, used.mapped - idle.mapped)
        write_atomically(kept, orjson.dumps(asdict(Fit(float(used.said), *beyond, idle.anonymous))))
    return Fit(**orjson.loads(kept.read_bytes()))


def fit_here(stored: Stored, queries: Queries) -> float:
    """Fit on the questions that it may be tuned on, write what was found, and return the seconds."""
    start = time.perf_counter()
    entry = fit_search(stored.open(), tuning_half(queries), stored.objects)
    seconds = time.perf_counter() - start
    write_atomically(stored.folder / KEPT, entry.model_dump_json().encode())
    return seconds


def search_entry(stored: Stored) -> SearchEntry:
    """Return the search that was fitted."""
    return SearchEntry.model_validate_json((stored.folder / KEPT).read_bytes())


def fitted_search(stored: Stored, store: VectorStore) -> Search:
    """Open the search that was fitted."""
    return open_search(stored.objects, search_entry(stored), store, None)


def stage_bytes(entry: SearchEntry) -> int:
    """Return the bytes of the files of a search, without those of its queries: they do not grow with the rows."""
    return sum(ref.bytes for ref in entry.objects().values() if ref != entry.queries)


def main(arguments: Sequence[str]) -> int:
    """Fit, write and print the seconds; ``--nothing`` only imports."""
    if "--nothing" in arguments:
        return 0
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    print(fit_here(read_stored(Path(arguments[0])), np.load(arguments[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
