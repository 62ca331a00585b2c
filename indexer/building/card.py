"""The queries of a build's card, and the card itself: exact scores against those of the stored vectors.

Queries are evenly spaced test examples at their own targets; without a test split, training examples that leave
themselves out. Their exact products with every training example are made in the pass that makes the vectors, from the
same factors in the same precision, so that a card costs one product a query and not a second pass.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from indexer.building.agreement import agreement, card_entry
from indexer.building.plan import machine_memory
from indexer.gradients.memory import held_bytes
from indexer.index.card import CardEntry
from indexer.index.store import VectorStore
from indexer.methods.method import Batch, Method
from indexer.task import Task, read_rows

NO_CARD = "no card: the gradients of one query do not fit, so how right the scores are was not measured"
CARD_SHARE = 8  # one part in so many of the machine's memory may go to the gradients of the card's queries
SCORES_BYTES = 2**30  # of the exact scores and their estimates at most: above, fewer queries are asked


@dataclass(frozen=True, slots=True)
class CardQueries:
    """Which examples are asked about; left_out: the position of each among the training rows, or None."""

    source: Literal["test", "train"]
    batch: Batch
    left_out: tuple[int | None, ...]

    def __len__(self) -> int:
        """Queries."""
        return len(self.left_out)


def card_queries(task: Task, most: int) -> CardQueries | None:
    """Return the queries, or None where none are wanted, or there is nothing to ask but about a row itself."""
    examples = task.train if task.test is None or len(task.test) == 0 else task.test
    source: Literal["test", "train"] = "train" if examples is task.train else "test"
    count = min(most, len(examples))
    alone = source == "train" and len(examples) == 1
    if count < 1 or alone:
        return None
    rows = [(2 * i + 1) * len(examples) // (2 * count) for i in range(count)]
    left_out = tuple(row if source == "train" else None for row in rows)
    return CardQueries(source, read_rows(examples, rows), left_out)


def planned_queries(method: Method, task: Task, wanted: int) -> int:
    """Return how many queries the card may ask: as many as are wanted and memory holds gradients and scores of."""
    scores = SCORES_BYTES // (8 * len(task.train))
    return min(wanted, scores, affordable_queries(method, task, machine_memory() // CARD_SHARE))


def affordable_queries(method: Method, task: Task, budget: int) -> int:
    """Return how many queries a pass may hold the gradients of, at all checkpoints, in so many bytes.

    Without exact scores in a pass none are held.
    """
    asked = method.asked(read_rows(task.train, [0]))
    return 0 if asked is None else budget // max(1, held_bytes(asked))


def query_vectors(method: Method, queries: CardQueries) -> Float[np.ndarray, "q m"]:
    """Return the query vectors, made one at a time as in a service."""
    inputs, targets = queries.batch
    rows: list[Tensor] = []
    for i in range(len(queries)):
        rows.append(method.query_vectors((inputs[i : i + 1], targets[i : i + 1]))[0])
    found: np.ndarray = torch.cat(rows).float().cpu().numpy()
    return found


def measured_card(
    queries: CardQueries,
    exact: Float[np.ndarray, "q n"],
    vectors: Float[np.ndarray, "q m"],
    store: VectorStore,
    *,
    basis_bytes: int,
) -> CardEntry:
    """Score every stored row by its decoded vector, as a search does, and compare."""
    estimate = np.empty_like(exact)
    for start, rows in store.chunks():
        estimate[:, start : start + len(rows)] = vectors @ rows.T
    figures = agreement(exact, estimate, queries.left_out)
    return card_entry(figures, source=queries.source, bytes_per_example=float(store.row_bytes), basis_bytes=basis_bytes)
