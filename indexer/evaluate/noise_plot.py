"""Pictures of label noise: curves of several orders of inspection, and what checkpoints find of each class."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from indexer.evaluate.label_noise import ClassFound, NoiseCurve
from indexer.evaluate.pictures import new_figure, save_figure

BARS = 0.8  # of the room of a class; the rest parts it from the next
SHORT = 5  # letters of a class's name; longer ones stand aslant


def plot_noise(curves: Mapping[str, NoiseCurve], title: str, path: Path) -> None:
    """Draw curves by name beside chance and the best possible order; the suffix chooses PNG, SVG or PDF.

    The curves are orders of the same examples: they share what is best possible.
    """
    first = next(iter(curves.values()))
    inspected = np.arange(1, len(first.found) + 1) / len(first.found)
    figure = new_figure(5.5, 4.5)
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(100 * inspected, 100 * curve.found, label=name, linewidth=2)
    best = np.minimum(1, inspected * len(first.found) / first.wrong)
    axes.plot(100 * inspected, 100 * best, ":", label="best possible", color="black")
    axes.plot([0, 100], [0, 100], "--", label="at random", color="grey")
    axes.axvline(10, color="lightgrey", zorder=0)
    axes.set(xlabel="training examples inspected (%)", ylabel="wrong labels found (%)", title=title)
    axes.set(xlim=(0, 100), ylim=(0, 101))
    axes.legend(loc="lower right")
    save_figure(figure, path)


def plot_by_class(found: Mapping[str, Sequence[ClassFound]], share: float, title: str, path: Path) -> None:
    """Draw a bar for each class and checkpoint, checkpoints by name; share: of the examples that were inspected."""
    labels = [of_class.label for of_class in next(iter(found.values()))]
    at, width = np.arange(len(labels)), BARS / len(found)
    figure = new_figure(8.0, 4.0)
    axes = figure.subplots()
    for i, (name, classes) in enumerate(found.items()):
        shift = (i - (len(found) - 1) / 2) * width
        axes.bar(at + shift, [100 * of_class.share for of_class in classes], width, label=name)
    axes.axhline(100 * share, linestyle="--", color="grey", label="at random")
    axes.set(xlabel="true class", ylabel=f"wrong labels found in the first {share:.0%} (%)", title=title, ylim=(0, 101))
    if max(map(len, labels)) > SHORT:
        axes.set_xticks(at, labels, rotation=30, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(at, labels)
    figure.legend(loc="outside right upper")
    save_figure(figure, path)
