"""Is the number right? Proponent against exact scores that other code made, on a neutral workload.

    python -m benchmarks.exactness cnn            (needs PROPONENT_BENCH, see benchmarks/neutral_task.py)

1. `identity` on the first 300 training rows: every score of 50 queries through index and ask, against exact.npy.
2. All 4,500 rows by streamed factor products, against exact.npy and self_exact.npy; peak memory.
"""

import argparse
import resource
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.neutral_task import neutral_task, workload
from indexer import Ask, BuildSpec, KnownExample, Question, build
from indexer.evaluate.exact import exact_scores

ROWS, QUERIES, TOP = 300, 50, 10


def identity_scores(name: str) -> tuple[np.ndarray, bool, bool]:
    """Return all scores [50, 300] through an index, and whether both top tens are those of exact.npy."""
    exact = np.load(workload(name) / "exact.npy")[:, :ROWS]
    task = neutral_task(name, ROWS)
    scores = np.empty((QUERIES, ROWS))
    same = {"proponents": True, "opponents": True}
    with tempfile.TemporaryDirectory() as scratch:
        spec = BuildSpec(workload(name), projection={"name": "identity"}, batch_size=50)
        ask = Ask.open(build(task, spec, Path(scratch) / "index").folder, task)
        assert task.test is not None
        for query in range(QUERIES):
            label = task.label_of(task.test[query][1])
            ranking = ask.query(Question(KnownExample("test", str(query)), label, k=ROWS))
            for hit in ranking.proponents:
                scores[query, int(hit.id)] = hit.score
            top = {
                "proponents": np.argsort(-exact[query], kind="stable")[:TOP],
                "opponents": np.argsort(exact[query], kind="stable")[:TOP],
            }
            for direction, rows in top.items():
                same[direction] &= [int(hit.id) for hit in getattr(ranking, direction)[:TOP]] == rows.tolist()
        ask.close()
    return scores, same["proponents"], same["opponents"]


def main() -> None:
    """Print one line a check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model", choices=["cnn", "mlp"])
    parser.add_argument("--skip-identity", action="store_true", help="only the streamed scores, for their memory")
    options = parser.parse_args()
    exact = np.load(workload(options.model) / "exact.npy")
    if not options.skip_identity:
        scores, proponents, opponents = identity_scores(options.model)
        pearson = np.corrcoef(scores.ravel(), exact[:, :ROWS].ravel())[0, 1]
        worst = np.abs(scores - exact[:, :ROWS]).max() / np.sqrt((exact[:, :ROWS] ** 2).mean())
        print(f"{options.model}: identity, {QUERIES} x {ROWS} scores: Pearson 1 - {1 - pearson:.1e}")
        print(
            f"  largest error {worst:.1e} of the RMS score; same top 10: proponents {proponents}, opponents {opponents}"
        )
    found = exact_scores(neutral_task(options.model), workload(options.model), queries=QUERIES)
    self_exact = np.load(workload(options.model) / "self_exact.npy")
    relative = np.max(np.abs(found.scores - exact) / np.abs(exact))
    self_relative = np.max(np.abs(found.self_influence.sum(axis=1) - self_exact) / self_exact)
    print(f"{options.model}: streamed, {QUERIES} x {exact.shape[1]:,}: largest relative error {relative:.1e}")
    print(f"  self-influence: largest relative error {self_relative:.1e}")
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
