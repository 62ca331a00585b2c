"""The pass over the training set that makes its vectors, and with them everything that needs the same gradients."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from indexer.building.card import CardQueries
from indexer.building.examples import check_labels
from indexer.building.plan import batches
from indexer.building.progress import Progress
from indexer.index.code import Code
from indexer.index.manifest import Plan, ShardEntry
from indexer.index.objects import Objects
from indexer.index.store import VectorWriter
from indexer.methods.method import Method
from indexer.task import Task, content_hash, read_rows


@dataclass(frozen=True, slots=True)
class VectorRows:
    """What the pass leaves: shards, self-influence [n, c], content hashes [n], and exact scores of the card's queries.

    Self-influence and scores are None where the method has none.
    """

    shards: list[ShardEntry]
    self_influence: Float[np.ndarray, "n c"] | None
    content: list[str]
    exact: Float[np.ndarray, "q n"] | None


@dataclass(frozen=True, slots=True)
class Pass:
    """A method that is ready, how its rows are coded (None: float32), and the plan."""

    method: Method
    code: Code | None
    plan: Plan

    @property
    def row_bytes(self) -> int:
        """Bytes of a stored vector."""
        return 4 * self.method.parts[-1].stop if self.code is None else self.code.row_bytes


def write_vectors(
    task: Task, of: Pass, queries: CardQueries | None, objects: Objects, progress: Progress
) -> VectorRows:
    """Stream the training set through the method, once."""
    writer = VectorWriter(objects, of.method.parts[-1].stop, code=of.code)
    total = len(task.train)
    asked = None if queries is None else of.method.asked(queries.batch)
    exact = None if asked is None or queries is None else np.empty((len(queries), total), np.float32)
    self_influence, content = [], []
    for rows in batches(total, of.plan.batch_size):
        inputs, targets = read_rows(task.train, rows)
        check_labels(task, "train", rows, targets)
        found = of.method.train_rows((inputs, targets), asked)
        vectors = found.vectors.float().cpu().numpy()
        if of.code is None:
            writer.add(vectors)
        else:
            writer.add(vectors, row_scales(vectors, found.self_influence))
        if found.self_influence is not None:
            self_influence.append(found.self_influence.cpu().numpy())
        if exact is not None and found.scores is not None:
            exact[:, rows.start : rows.stop] = found.scores.T.cpu().numpy()
        content += [content_hash(x, y) for x, y in zip(inputs, targets, strict=True)]
        progress("vectors", rows.stop, total)
    return VectorRows(writer.finish(), np.concatenate(self_influence) if self_influence else None, content, exact)


def row_scales(vectors: Float[np.ndarray, "b m"], self_influence: torch.Tensor | None) -> Float[np.ndarray, " b"]:
    """Return what coded rows are relative to: the true norm of the gradient, or the vector's where none is known."""
    if self_influence is None:
        norms: np.ndarray = np.linalg.norm(vectors, axis=1)
    else:
        norms = self_influence.double().sum(1).sqrt().cpu().numpy()
    return norms.astype(np.float32)
