"""The demo's answers against exact ones, and their time against plain gradients, in one run.

    proponent demo mnist && python -m benchmarks.demo

Recall@10: how many of the exact top ten (factor products in float64) are in an answer's ten, over 100 test digits at
their own labels. Query time: whole answers of `Ask`, warm, over the plain parameter gradients of the same digits, one
checkpoint after the other, in the same process; medians of 100.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from indexer import Ask, BuildSpec, KnownExample, Question, build
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import load_into, read_weights
from indexer.evaluate.exact import exact_scores
from indexer.recipes.mnist import task

RUN = Path("runs/mnist")
PROJECTIONS: list[tuple[dict[str, Any], int | None]] = [
    ({"name": "pca", "seed": 0}, 256),
    ({"name": "pca", "seed": 0}, 512),
    ({"name": "gaussian", "numbers": 256, "seed": 0}, None),
    ({"name": "rank1", "numbers": 1024, "seed": 0}, None),
]  # with bytes an example, or float32
QUERIES, TOP = 100, 10


def plain_gradients() -> list[float]:
    """Return the seconds that ``backward()`` takes at all checkpoints, for each query."""
    modules: list[nn.Module] = []
    for checkpoint in open_run(RUN).checkpoints:
        modules.append(task.model().eval())
        load_into(modules[-1], read_weights(checkpoint.path), checkpoint.path.name)
    assert task.test is not None
    seconds = []
    for query in range(QUERIES):
        x, y = task.test[query]
        start = time.perf_counter()
        for module in modules:
            loss = task.loss(module(x[None]), y[None]).sum()
            torch.autograd.grad(loss, list(module.parameters()))
        seconds.append(time.perf_counter() - start)
    return seconds


def answers(ask: Ask, exact: np.ndarray) -> tuple[list[float], float, float]:
    """Return the seconds of each answer, and recall@10 of both directions."""
    assert task.test is not None
    seconds, found = [], {"proponents": 0, "opponents": 0}
    for query in range(QUERIES):
        question = Question(KnownExample("test", str(query)), task.label_of(task.test[query][1]), k=TOP)
        start = time.perf_counter()
        ranking = ask.query(question)
        seconds.append(time.perf_counter() - start)
        order = np.argsort(-exact[query])
        for direction, rows in (("proponents", order[:TOP]), ("opponents", order[-TOP:])):
            found[direction] += len({int(hit.id) for hit in getattr(ranking, direction)} & set(rows.tolist()))
    return seconds, found["proponents"] / (QUERIES * TOP), found["opponents"] / (QUERIES * TOP)


def main() -> None:
    """Print one row a projection."""
    exact = exact_scores(task, BuildSpec(RUN), queries=QUERIES).scores
    plain_gradients()  # warm
    print("| projection | bytes an example | recall@10 p / o | answer p50 | p99 | p50 over plain gradients |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for number, (projection, bytes) in enumerate(PROJECTIONS):
            spec = BuildSpec(RUN, projection=projection, bytes_per_example=bytes)
            version = build(task, spec, Path(scratch) / str(number))
            ask = Ask.open(version.folder, task)
            answers(ask, exact)  # warm
            seconds, proponents, opponents = answers(ask, exact)
            plain = float(np.median(plain_gradients()))
            p50, p99 = np.quantile(seconds, [0.5, 0.99])
            name = ":".join(str(projection[key]) for key in ("name", "numbers") if key in projection)
            print(f"| {name} | {ask.index.store.row_bytes:,} | {proponents:.2f} / {opponents:.2f} ", end="")
            print(f"| {1000 * p50:.1f} ms | {1000 * p99:.1f} ms | {p50 / plain:.2f} |")
            ask.close()


if __name__ == "__main__":
    main()
