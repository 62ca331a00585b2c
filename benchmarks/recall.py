"""Recall by bytes of a training example: pca beside the projections that need no data, and is a card right?

    PROPONENT_BENCH=bench python -m benchmarks.recall --models cnn,mlp
    PROPONENT_BENCH=bench python -m benchmarks.recall --models cnn,mlp --only card

bytes: an index of each projection is built with `BuildSpec.bytes_per_example`; the vectors of 50 questions that other
code has scored exactly (exact.npy, see `benchmarks.neutral_task`) are multiplied with all its decoded rows. Nothing is
scored again. The projections without data get as many numbers as fit in 4 bits each, so that bytes are compared with
bytes. A row "even rows" fits the bases on the even training rows alone and looks for the odd ones.
card: exact scores of all 500 test examples in float64, streamed apart from any build, against what the index answers to
them through `Ask`; beside it what the card of the index says of its own 50, with its interval.
"""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from benchmarks.neutral_task import neutral_task, workload
from indexer import Ask, BuildSpec, KnownExample, Question, Task, build
from indexer.building.source import Options, open_source
from indexer.building.vectors import row_scales
from indexer.checkpoints.folder import open_run
from indexer.errors import TooLargeError
from indexer.evaluate.exact import exact_scores
from indexer.methods.method import Method
from indexer.methods.tracin_kind import TracInKind
from indexer.task import read_rows

QUERIES, ALL_QUERIES, BATCH = 50, 500, 125
BYTES = (256, 1024, 4096)
PROJECTIONS = ("pca", "countsketch", "rank1", "gaussian")
BARS = {256: (0.78, 0.85), 1024: (0.88, 0.91), 4096: (0.90, 0.92)}  # recall@10 of proponents and opponents, of pca
LARGEST_MATRICES = 5 * 2**30  # bytes of the matrices of all checkpoints, of which a build holds two copies

Scores = Float[np.ndarray, "q n"]


def recall(exact: Scores, estimate: Scores, k: int = 10) -> tuple[float, float]:
    """Return the share of the exact first k that are among the estimated first k: proponents, opponents."""
    found = []
    for sign in (-1, 1):
        first = [np.argsort(sign * scores, axis=1, kind="stable")[:, :k] for scores in (exact, estimate)]
        found.append(float(np.mean([len(set(a) & set(b)) / k for a, b in zip(*first, strict=True)])))
    return found[0], found[1]


def pearson(exact: Scores, estimate: Scores) -> float:
    """Return the correlation over all pairs."""
    return float(np.corrcoef(exact.ravel(), estimate.ravel())[0, 1])


def vectors_of(method: Method, task: Task) -> Float[np.ndarray, "q m"]:
    """Return the vectors of the first test examples, at their own labels, made one at a time."""
    questions = [read_rows(task.split("test") or (), [row]) for row in range(QUERIES)]
    found: np.ndarray = torch.cat([method.query_vectors(question)[0] for question in questions]).numpy()
    return found


def estimated(name: str, projection: str, bytes: int) -> tuple[Scores, float]:
    """Return the scores [50, 4500] of an index, and the bytes that its card counts for an example."""
    task = neutral_task(name)
    spec = BuildSpec(workload(name), projection={"name": projection, "seed": 0}, bytes_per_example=bytes)
    with tempfile.TemporaryDirectory() as scratch:
        ask = Ask.open(build(task, spec, Path(scratch) / "index").folder, task)
        asked, card = vectors_of(ask.index.method, task), ask.index.version.manifest.card
        rows = np.concatenate([rows for _, rows in ask.index.store.chunks()])
        ask.close()
    assert card is not None
    scores: np.ndarray = asked @ rows.T
    return scores, card.bytes_per_example


def fitted_on_even_rows(name: str, bytes: int) -> Scores:
    """Return the scores [50, 4500] of pca with bases, steps and bits from the even rows."""
    task = neutral_task(name)
    source = open_source(task, open_run(workload(name)), Options())
    parameters = {"projection": {"name": "pca", "bytes": bytes, "seed": 0}}
    even = [range(start, min(start + 2 * BATCH, len(task.train)), 2) for start in range(0, len(task.train), 2 * BATCH)]

    def sample() -> Any:
        return (read_rows(task.train, rows) for rows in even)

    fitted = TracInKind().fit(source.model, source.etas, parameters, sample, None)
    method = TracInKind().open(source.model, source.etas, parameters, fitted.tensors)
    assert fitted.code is not None
    rows = []
    for start in range(0, len(task.train), BATCH):
        made = method.train_rows(read_rows(task.train, range(start, min(start + BATCH, len(task.train)))))
        vectors = made.vectors.numpy()
        rows.append(fitted.code.decode(fitted.code.encode(vectors, row_scales(vectors, made.self_influence))))
    scores: np.ndarray = vectors_of(method, task) @ np.concatenate(rows).T
    return scores


def table_of_bytes(name: str) -> bool:
    """Print a row a projection and number of bytes; say whether pca passes its bars."""
    exact, passed = np.load(workload(name) / "exact.npy"), True
    print(f"\n{name}\n\n| bytes | projection | recall@10, proponents / opponents | Pearson | bytes on the card |")
    print("|---|---|---|---|---|", flush=True)
    for bytes, projection in itertools.product(BYTES, PROJECTIONS):
        if projection == "gaussian" and _matrices(name, bytes) > LARGEST_MATRICES:
            print(f"| {bytes} | gaussian | - | - | its matrices take {_matrices(name, bytes) / 2**30:.0f} GiB |")
            continue
        try:
            scores, on_card = estimated(name, projection, bytes)
        except TooLargeError as exc:
            print(f"| {bytes} | {projection} | - | - | {exc} |", flush=True)
            continue
        found = recall(exact, scores)
        print(
            f"| {bytes} | {projection} | {_shown(found)} | {pearson(exact, scores):.4f} | {on_card:.0f} |", flush=True
        )
        if projection == "pca":
            passed &= all(share >= bar for share, bar in zip(found, BARS[bytes], strict=True))
            odd = np.arange(1, exact.shape[1], 2)
            scores = fitted_on_even_rows(name, bytes)[:, odd]
            found = recall(exact[:, odd], scores)
            print(
                f"| {bytes} | pca, even rows | {_shown(found)} | {pearson(exact[:, odd], scores):.4f} | |", flush=True
            )
    return passed


def card(name: str) -> bool:
    """Print what cards say beside what all test examples say; say whether each figure is in its interval."""
    task = neutral_task(name)
    exact = exact_scores(task, BuildSpec(workload(name)), queries=ALL_QUERIES).scores
    held = True
    print(f"\n{name}\n\n| bytes | figure | card, 50 questions | its interval | all 500, independent | inside |")
    print("|---|---|---|---|---|---|", flush=True)
    for bytes in BYTES:
        with tempfile.TemporaryDirectory() as scratch:
            spec = BuildSpec(workload(name), bytes_per_example=bytes)
            ask = Ask.open(build(task, spec, Path(scratch) / "index").folder, task)
            measured, entry = _through_ask(ask, task, exact), ask.index.version.manifest.card
            ask.close()
        assert entry is not None
        for figure, value in measured.items():
            direction, _, which = figure.rpartition(" ")
            of = getattr(entry, direction) if direction else entry
            said, interval = getattr(of, which), getattr(of, f"{which}_interval")
            inside = interval[0] <= value <= interval[1]
            held &= inside
            print(f"| {bytes} | {figure} | {said:.4f} | {interval[0]:.4f}-{interval[1]:.4f} | {value:.4f} | {inside} |")
        sys.stdout.flush()
    return held


def _through_ask(ask: Ask, task: Task, exact: Scores) -> dict[str, float]:
    """Return the figures of a card from answers to all test examples, at their own labels."""
    shares: dict[str, list[float]] = {}
    estimate = np.empty_like(exact)
    rows = np.concatenate([rows for _, rows in ask.index.store.chunks()])
    for query in range(ALL_QUERIES):
        question = read_rows(task.split("test") or (), [query])
        label = task.label_of(question[1][0])
        ranking = ask.query(Question(KnownExample("test", str(query)), label, k=100))
        order = np.argsort(-exact[query], kind="stable")
        for direction, hits, best in (
            ("proponents", ranking.proponents, order),
            ("opponents", ranking.opponents, order[::-1]),
        ):
            for k in (10, 100):
                found = {int(hit.id) for hit in hits[:k]} & set(best[:k].tolist())
                shares.setdefault(f"{direction} recall_at_{k}", []).append(len(found) / k)
        estimate[query] = ask.index.method.query_vectors(question)[0].numpy()[0] @ rows.T
    return {figure: float(np.mean(found)) for figure, found in shares.items()} | {"pearson": pearson(exact, estimate)}


def _matrices(name: str, bytes: int) -> int:
    """Return the bytes of gaussian's matrices: 4 for each number and parameter."""
    parameters = {"cnn": 207_178, "mlp": 535_818}[name]
    return 4 * 2 * (bytes - 4) * parameters


def _shown(found: tuple[float, float]) -> str:
    return f"{found[0]:.3f} / {found[1]:.3f}"


CHECKS: dict[str, Callable[[str], bool]] = {"bytes": table_of_bytes, "card": card}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; exit status 1 where a bar or an interval does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--models", default="cnn,mlp", help="of cnn and mlp, with commas between")
    parser.add_argument("--only", choices=list(CHECKS), help="one of the two tables")
    options = parser.parse_args(arguments)
    held = [
        check(name)
        for name in options.models.split(",")
        for which, check in CHECKS.items()
        if options.only in (None, which)
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
