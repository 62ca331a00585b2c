"""Label noise: do wrong labels come first when training examples are sorted by self-influence?

An example with a wrong label pulls hard on the weights and almost alone: its self-influence is high (TracIn, section
4.1). The curve is the share of the wrong labels found against the share of the training set inspected.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from indexer.errors import TaskError
from indexer.evaluate.pictures import new_figure, save_figure
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


def by_self_influence(examples: Examples, true_labels: Sequence[str]) -> NoiseCurve:
    """Return the curve for an index; true_labels in the order of the training set.

    Raises:
        TaskError: the labels are not names, or the index has another number of examples with self-influence.
    """
    odd = next((label for label in true_labels if not isinstance(label, str)), None)
    if odd is not None:
        raise TaskError(f"expected true labels as strings, like the task's labels; found {type(odd).__name__} {odd!r}")
    ordered = [example for example, _ in examples.self_influence()]
    if len(ordered) != len(true_labels):
        raise TaskError(
            f"expected the true label of each of the {len(ordered)} training examples that have a self-influence, "
            f"found {len(true_labels)}"
        )
    return noise_curve(np.array([example.label != true_labels[example.row] for example in ordered]))


def plot_noise(curve: NoiseCurve, title: str, path: Path) -> None:
    """Draw the curve beside chance and beside the best possible order; the suffix chooses PNG, SVG or PDF."""
    inspected = np.arange(1, len(curve.found) + 1) / len(curve.found)
    figure = new_figure(5.5, 4.5)
    axes = figure.subplots()
    axes.plot(100 * inspected, 100 * curve.found, label="by self-influence", linewidth=2)
    axes.plot(
        100 * inspected, 100 * np.minimum(1, inspected * len(curve.found) / curve.wrong), ":", label="best possible"
    )
    axes.plot([0, 100], [0, 100], "--", label="at random", color="grey")
    axes.axvline(10, color="lightgrey", zorder=0)
    axes.set(xlabel="training examples inspected (%)", ylabel="wrong labels found (%)", title=title)
    axes.set(xlim=(0, 100), ylim=(0, 101))
    axes.legend(loc="lower right")
    save_figure(figure, path)
