"""Exact TracInCP scores of many queries against the whole training set, streamed: nothing is projected or stored.

Factor products in float64: the truth that indexes are measured against, at any size of model.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from indexer.building.plan import batches
from indexer.building.progress import Progress, silent
from indexer.building.selection import selected
from indexer.building.source import Options, open_source
from indexer.building.spec import BuildSpec
from indexer.errors import TaskError
from indexer.methods.tracin import TracIn
from indexer.projection.identity import Identity
from indexer.task import Task, read_rows


@dataclass(frozen=True, slots=True)
class ExactScores:
    """Exact scores [q, n] of the first q test examples, and self-influence [n, c] by checkpoint."""

    scores: Float[np.ndarray, "q n"]
    self_influence: Float[np.ndarray, "n c"]


def exact_scores(
    task: Task, spec: BuildSpec, *, queries: int, batch_size: int = 128, progress: Progress = silent
) -> ExactScores:
    """Score the first ``queries`` test examples, at their own labels, against every training example.

    spec: its checkpoints, which of them and how they weigh, and its parameters; nothing else of it is used.

    Raises:
        TaskError: the task has no test split, or a smaller one.
    """
    if task.test is None or len(task.test) < queries:
        found = 0 if task.test is None else len(task.test)
        raise TaskError(
            f"expected at least {queries} test examples to ask about, found {found}; give the task a test split"
        )
    run, _ = selected(spec)
    source = open_source(task, run, Options(torch.float64, tuple(spec.parameters), eta=spec.eta))
    method = TracIn(source.model, source.etas, Identity(source.model.layout))
    rows = batches(len(task.train), batch_size)
    scores, self_influence = [], []
    train = (read_rows(task.train, batch) for batch in rows)
    for batch, (products, norms) in zip(rows, method.exact(read_rows(task.test, range(queries)), train), strict=True):
        scores.append(products.T.numpy())
        self_influence.append(norms.numpy())
        progress("exact scores", batch.stop, len(task.train))
    return ExactScores(np.concatenate(scores, axis=1), np.concatenate(self_influence))
