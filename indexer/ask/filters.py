"""Which training examples an answer may name: by label, by id, by self-influence.

A filter leaves a mask over the rows of the vectors; the search sees nothing else. It never changes a score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from indexer.errors import QuestionError
from indexer.index.examples import Examples


@dataclass(frozen=True, slots=True)
class Filter:
    """Keep training examples that pass every part that is given; nothing given keeps all.

    labels: those that have one of these; ids: only these; exclude_ids: without these. least, most: bounds of the
    self-influence over all checkpoints, both included.
    """

    labels: Sequence[str] | None = None
    ids: Sequence[str] | None = None
    exclude_ids: Sequence[str] = ()
    least_self_influence: float | None = None
    most_self_influence: float | None = None


def selected_rows(
    wanted: Filter, examples: Examples, labels: Sequence[str] | None, count: int
) -> Bool[np.ndarray, " n"]:
    """Return which of so many rows of the vectors pass: never a deleted one; labels: those of the task.

    Raises:
        UnknownLabelError: no example can have such a label.
        QuestionError: an id is of no training example, or the index has no self-influence to filter by.
    """
    for label in wanted.labels or ():
        examples.check_label(label, labels)
    for name, ids in (("ids", wanted.ids), ("exclude_ids", wanted.exclude_ids)):
        _check_ids(name, ids, examples)
    bounds = (wanted.least_self_influence, wanted.most_self_influence)
    if bounds != (None, None):
        examples.part_of(None)
    rows = np.zeros(count, bool)
    rows[examples.positions(wanted.labels, wanted.ids, wanted.exclude_ids, bounds)] = True
    return rows


def _check_ids(name: str, ids: Sequence[str] | None, examples: Examples) -> None:
    """Make sure that ids are of training examples.

    Raises:
        QuestionError: some are not, with how many.
    """
    given = set(ids or ())
    if not given:
        return
    unknown = len(given) - len(examples.positions(None, sorted(given), (), (None, None)))
    if unknown:
        raise QuestionError(
            f"filter.{name}: {unknown} of {len(given)} are not the id of a training example of the index"
        )
