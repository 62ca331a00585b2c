"""Label noise: do wrong labels come first when training examples are sorted by self-influence?

An example with a wrong label pulls hard on the weights and almost alone: its self-influence is high (TracIn, section
4.1). The curve is the share of the wrong labels found against the share of the training set inspected. Any other
number of an example gives a curve too; a random order finds, on average, the share that it inspects.

By class: checkpoints differ in which wrong labels they find (TracIn, figure 8), so that what the first examples by the
self-influence of one checkpoint hold is counted for each true class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from indexer.errors import TaskError
from indexer.index.examples import Examples


@dataclass(frozen=True, slots=True)
class NoiseCurve:
    """found[i]: share of all wrong labels among the i + 1 examples that were inspected first."""

    found: Float[np.ndarray, " n"]
    wrong: int

    def at(self, share: float) -> float:
        """Return the share found when this share of the examples was inspected."""
        inspected = round(share * len(self.found))
        return float(self.found[inspected - 1]) if inspected else 0.0


@dataclass(frozen=True, slots=True)
class LabelledExamples:
    """Training examples of an index in the order of the training set, and what they should be called.

    wrong: whether an example's label in the index is not its true one. self_influence: by checkpoint.
    """

    true_labels: tuple[str, ...]
    wrong: Bool[np.ndarray, " n"]
    self_influence: Float[np.ndarray, "n c"]


@dataclass(frozen=True, slots=True)
class ClassFound:
    """Of a true class: its examples with a wrong label, and how many of them were found."""

    label: str
    found: int
    wrong: int

    @property
    def share(self) -> float:
        """found / wrong."""
        return self.found / self.wrong


def noise_curve(wrong_first_to_last: Bool[np.ndarray, " n"]) -> NoiseCurve:
    """Return the curve of an order of inspection.

    >>> noise_curve(np.array([True, False, True, False])).found.tolist()
    [0.5, 0.5, 1.0, 1.0]

    Raises:
        TaskError: no label is wrong, so that there is nothing to find.
    """
    wrong = int(wrong_first_to_last.sum())
    if wrong == 0:
        raise TaskError("no given label differs from its true label: there is nothing to find")
    return NoiseCurve(np.cumsum(wrong_first_to_last) / wrong, wrong)


def by_numbers(numbers: Float[np.ndarray, " n"], wrong: Bool[np.ndarray, " n"]) -> NoiseCurve:
    """Return the curve for one number an example, such as its loss: highest first, equal ones by row.

    >>> by_numbers(np.array([0.1, 0.9, 0.9]), np.array([True, False, True])).found.tolist()
    [0.0, 0.5, 1.0]

    Raises:
        TaskError: no label is wrong, or a number is NaN, which has no place in an order.
    """
    return noise_curve(wrong[_highest_first(numbers)])


def by_self_influence(examples: Examples, true_labels: Sequence[str]) -> NoiseCurve:
    """Return the curve for an index; true_labels in the order of the training set.

    Raises:
        TaskError: the labels are not names, or the index has another number of examples with self-influence.
    """
    labelled = labelled_examples(examples, true_labels)
    return by_numbers(labelled.self_influence.sum(axis=1), labelled.wrong)


def labelled_examples(examples: Examples, true_labels: Sequence[object]) -> LabelledExamples:
    """Return the training examples of an index beside their true labels, given in the order of the training set.

    Raises:
        TaskError: the labels are not names, or the index has another number of examples with self-influence.
    """
    odd = next((label for label in true_labels if not isinstance(label, str)), None)
    if odd is not None:
        raise TaskError(f"expected true labels as strings, like the task's labels; found {type(odd).__name__} {odd!r}")
    found = sorted((example for example, _ in examples.self_influence()), key=lambda example: example.row)
    if len(found) != len(true_labels):
        raise TaskError(
            f"expected the true label of each of the {len(found)} training examples that have a self-influence, "
            f"found {len(true_labels)}"
        )
    wrong = [example.label != true_labels[example.row] for example in found]
    parts = np.array([example.self_influence for example in found], dtype=np.float64)
    return LabelledExamples(tuple(map(str, true_labels)), np.array(wrong), parts)


def found_by_class(labelled: LabelledExamples, checkpoint: int, share: float) -> list[ClassFound]:
    """Return what the first examples by the self-influence of one checkpoint, by its number from 0, hold of each class.

    Classes stand in the order of their names; those that have no wrong label are left out.

    Raises:
        TaskError: a self-influence is NaN.
    """
    order = _highest_first(labelled.self_influence[:, checkpoint])
    inspected = np.zeros(len(order), dtype=bool)
    inspected[order[: round(share * len(order))]] = True
    labels = np.array(labelled.true_labels)
    of_class = [(label, labelled.wrong & (labels == label)) for label in sorted(set(labelled.true_labels))]
    return [
        ClassFound(str(label), int(inspected[rows].sum()), int(rows.sum())) for label, rows in of_class if rows.any()
    ]


def early_middle_last(checkpoints: int) -> list[int]:
    """Return the numbers, from 0, of the first, the middle and the last checkpoint; fewer where there are fewer.

    >>> early_middle_last(5), early_middle_last(4), early_middle_last(2)
    ([0, 2, 4], [0, 1, 3], [0, 1])
    """
    return sorted({0, (checkpoints - 1) // 2, checkpoints - 1})


def _highest_first(numbers: Float[np.ndarray, " n"]) -> np.ndarray:
    if np.isnan(numbers).any():
        row = int(np.isnan(numbers).argmax())
        raise TaskError(f"row {row}: expected a number to sort by, found NaN")
    return np.argsort(-numbers, kind="stable")
