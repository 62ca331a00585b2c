"""The picture of growth: panels side by side over the number of rows, both axes logarithmic."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.evaluate.pictures import new_figure, save_figure

SIZE = (4.6, 4.2)  # inches of a panel


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity by rows. kind: of matplotlib, such as ``o-``; what is drawn on paper alone is dotted."""

    name: str
    rows: Sequence[float]
    values: Sequence[float]
    kind: str = "o-"


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines of one unit."""

    title: str
    unit: str
    lines: Sequence[Line]


def plot_panels(panels: Sequence[Panel], path: Path) -> None:
    """Draw panels; the suffix chooses PNG, SVG or PDF."""
    figure = new_figure(SIZE[0] * len(panels), SIZE[1])
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for line in panel.lines:
            axes.loglog(line.rows, line.values, line.kind, label=line.name, linewidth=2, markersize=5)
        axes.set(title=panel.title, xlabel="training examples", ylabel=panel.unit)
        axes.grid(which="major", color="lightgrey", linewidth=0.6)
        axes.legend(loc="best", framealpha=0.9)
    save_figure(figure, path)
