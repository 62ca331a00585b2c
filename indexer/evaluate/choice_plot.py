"""The picture of a choice of checkpoints: the loss, its level and the gradient norm, and where the checkpoints lie."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from indexer.checkpoints.choose import Choice
from indexer.checkpoints.run import Run
from indexer.evaluate.pictures import new_figure, save_figure

LOWEST, HIGHEST = 1.0, 99.0  # percentiles: what lies beyond is cut off, so that a spike does not flatten the rest
MARGIN = 0.05  # of the height, free above and below
THIN = 5000  # points of a light line; more are not seen, and make large SVG files

_CHOSEN, _OTHER, _LIGHT, _STRONG = "#c0392b", "#7f8c8d", "#b8cfe5", "#1f5582"


def plot_choice(choice: Choice, run: Run, path: Path) -> None:
    """Draw the loss and, below it, the gradient norm over the steps; the suffix chooses PNG, SVG or PDF.

    All checkpoints are ticks under the curves, the chosen ones are lines through both panels. The first rate of a
    history is drawn faintly over the gradient norm; epochs stand above where steps an epoch are known.
    """
    figure = new_figure(8.0, 6.0)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    _draw_loss(upper, choice)
    _draw_gradients(lower, run)
    for axes in (upper, lower):
        _mark(axes, choice)
    upper.set_title(f"{len(choice.chosen)} of {len(choice.verdicts)} checkpoints chosen, {run.folder.name}")
    upper.legend(loc="upper right", framealpha=0.9)
    lower.set_xlabel("step of the optimizer")
    if run.steps_per_epoch is not None:
        each = run.steps_per_epoch
        upper.secondary_xaxis("top", functions=(lambda s: s / each, lambda e: e * each)).set_xlabel("epoch")
    save_figure(figure, path)


def _draw_loss(axes: Any, choice: Choice) -> None:
    losses, curve = choice.losses, choice.curve
    every = -(-len(losses.steps) // THIN)
    axes.plot(losses.steps[::every], losses.values[::every], color=_LIGHT, linewidth=0.8, label="loss, as noted")
    axes.plot(curve.steps, curve.levels, color=_STRONG, linewidth=2, label="level")
    known = [v for v in choice.verdicts if v.chosen and v.level is not None]
    steps, levels = [v.checkpoint.step for v in known], [v.level for v in known]
    axes.plot(steps, levels, "o", color=_CHOSEN, zorder=4, label="chosen")
    axes.set(ylabel="training loss", ylim=_limits(losses.values, np.append(curve.levels, curve.losses.min())))


def _draw_gradients(axes: Any, run: Run) -> None:
    noted = run.history
    axes.set_ylabel("gradient norm")
    known = np.isfinite(noted.gradient_norms)
    if known.any():
        every = -(-int(known.sum()) // THIN)
        steps, norms = noted.steps[known][::every], noted.gradient_norms[known][::every]
        axes.plot(steps, norms, color=_STRONG, linewidth=0.8)
        axes.set_ylim(_limits(norms, norms[:0]))
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.55, "gradient norm: not recorded", transform=axes.transAxes, ha="center", color=_OTHER)
    rates = noted.learning_rates[:, :1]
    rated = np.isfinite(rates).all(axis=1)
    if rates.shape[1] and rated.any():
        beside = axes.twinx()
        beside.plot(noted.steps[rated], rates[rated, 0], color=_OTHER, linewidth=1, alpha=0.6, linestyle="--")
        beside.set_ylabel("learning rate (dashed)", color=_OTHER)
        beside.set_ylim(bottom=0)
        beside.tick_params(axis="y", colors=_OTHER)


def _mark(axes: Any, choice: Choice) -> None:
    """Mark the checkpoints at the foot of a panel, and the chosen ones across it."""
    foot, named = axes.get_xaxis_transform(), "another checkpoint"
    for verdict in choice.verdicts:
        step = verdict.checkpoint.step
        if step is None:
            continue
        if verdict.chosen:
            axes.axvline(step, color=_CHOSEN, linewidth=1, alpha=0.7, zorder=3)
        else:
            axes.plot([step, step], [0, 0.05], color=_OTHER, linewidth=1, transform=foot, zorder=3, label=named)
            named = "_"  # in the legend once


def _limits(values: Float[np.ndarray, " s"], kept: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """Return limits that show most of the values, and all that are to be kept."""
    shown = np.append(np.percentile(values, [LOWEST, HIGHEST]), kept)
    low, high = float(shown.min()), float(shown.max())
    free = MARGIN * (high - low) or 0.5
    return low - 2 * free, high + free
