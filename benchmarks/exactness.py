"""Is the number right? Proponent against exact scores that other code made, on a neutral workload.

    PROPONENT_BENCH=bench python -m benchmarks.exactness cnn            (see benchmarks/neutral_task.py)

identity: the first 300 training rows through index and ask, every score of 50 queries against exact.npy.
streamed: all 4,500 rows by factor products, against exact.npy and self_exact.npy, and the peak memory.
Exit status 1 where a bound does not hold.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.neutral_task import neutral_task, workload
from indexer import Ask, BuildSpec, KnownExample, Question, build
from indexer.evaluate.exact import exact_scores

ROWS, QUERIES, TOP = 300, 50, 10
LOWEST_PEARSON = 0.999999
LARGEST_ERROR = 1e-4  # relative, of every score
MOST_MEMORY = 4.0  # GiB, of the streamed scores


def identity(name: str) -> bool:
    """Compare all scores [50, 300] and both top tens of an index with exact.npy."""
    exact = np.load(workload(name) / "exact.npy")[:, :ROWS]
    task = neutral_task(name, ROWS)
    scores, same = np.empty((QUERIES, ROWS)), True
    with tempfile.TemporaryDirectory() as scratch:
        spec = BuildSpec(workload(name), projection={"name": "identity"}, batch_size=50)
        ask = Ask.open(build(task, spec, Path(scratch) / "index").folder, task)
        assert task.test is not None
        for query in range(QUERIES):
            label = task.label_of(task.test[query][1])
            ranking = ask.query(Question(KnownExample("test", str(query)), label, k=ROWS))
            for hit in ranking.proponents:
                scores[query, int(hit.id)] = hit.score
            order = np.argsort(-exact[query], kind="stable")
            same &= [int(hit.id) for hit in ranking.proponents[:TOP]] == order[:TOP].tolist()
            same &= [int(hit.id) for hit in ranking.opponents[:TOP]] == order[::-1][:TOP].tolist()
        ask.close()
    pearson = np.corrcoef(scores.ravel(), exact.ravel())[0, 1]
    worst = np.abs(scores - exact).max() / np.sqrt((exact**2).mean())
    print(f"{name}: identity, {QUERIES} x {ROWS} scores: Pearson 1 - {1 - pearson:.1e}, same top ten both ways: {same}")
    print(f"  largest error {worst:.1e} of the RMS score")
    return bool(pearson > LOWEST_PEARSON and same)


def streamed(name: str) -> bool:
    """Compare all scores [50, 4500] by factor products with exact.npy, self-influence too, and take the memory."""
    exact, self_exact = (np.load(workload(name) / f"{file}.npy") for file in ("exact", "self_exact"))
    found = exact_scores(neutral_task(name), BuildSpec(workload(name)), queries=QUERIES)
    error = np.max(np.abs(found.scores - exact) / np.abs(exact))
    self_error = np.max(np.abs(found.self_influence.sum(axis=1) - self_exact) / self_exact)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name}: streamed, {QUERIES} x {exact.shape[1]:,}: largest relative error {error:.1e}")
    print(f"  self-influence: largest relative error {self_error:.1e}; peak memory {memory:.2f} GiB")
    return bool(max(error, self_error) < LARGEST_ERROR and memory < MOST_MEMORY)


CHECKS = {"streamed": streamed, "identity": identity}  # the one whose memory counts comes first


def main() -> int:
    """Print two lines a check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model", choices=["cnn", "mlp"])
    parser.add_argument("--only", choices=list(CHECKS), help="one of the two checks")
    options = parser.parse_args()
    held = [check(options.model) for name, check in CHECKS.items() if options.only in (None, name)]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
