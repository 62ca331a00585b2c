"""Which checkpoints? Chosen ones beside evenly spaced ones, the first, the last and all, by how good their scores are.

    PROPONENT_DATA=data python -m benchmarks.checkpoint_choice --plot

Every way of choosing takes from the same candidates (every quarter of the first two epochs, then every epoch's end):

    chosen           5 checkpoints, by indexer.checkpoints.choose from the history of each run
    evenly spaced    5 checkpoints: the candidates nearest to j / 5 of all steps, j = 1 to 5, so the last is one of them
    first, last      1 checkpoint: the first candidate (a quarter of an epoch), the last one
    all              every candidate, for information

Score noise: two runs on the same data with the same flipped labels, other first weights and another order of the
batches. For each of 100 test examples at its own label, the correlation over all training examples between the exact
TracInCP scores of the two runs: what differs is luck. Wrong labels found: the share of the flipped labels among the 10%
of the training examples that have the highest self-influence. Neither says enough alone: before anything is learnt the
scores of all runs agree, on little more than which examples share a label.

Correlations: mean over pairs of runs and test examples, ± the standard error over test examples, and the mean of each
pair. Found: mean over runs, ± the standard error over runs, and each run, pair by pair.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from benchmarks.checkpoint_runs import SETTINGS, Products, Setting, run_and_products
from indexer.checkpoints.choose import choose
from indexer.checkpoints.eta import etas
from indexer.checkpoints.run import Run
from indexer.evaluate.choice_plot import plot_choice
from indexer.evaluate.label_noise import noise_curve

K = 5
INSPECTED = 0.1  # share of the training examples
FIGURE = Path(__file__).parent / "figures" / "checkpoint_choice.png"


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way of choosing checkpoints of a run, and how the chosen ones are weighted."""

    name: str
    eta: str
    steps: Callable[[Run], Sequence[int]]

    @property
    def title(self) -> str:
        """What the table and the figure call it."""
        return self.name if self.eta == "learning_rate" else f"{self.name}, eta = {self.eta}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a strategy gave: correlations for each pair of runs and test example, wrong labels found in each run."""

    title: str
    pearson: Float[np.ndarray, "pairs q"]
    spearman: Float[np.ndarray, "pairs q"]
    found: Float[np.ndarray, "pairs 2"]


def evenly_spaced(steps: Sequence[int], k: int) -> list[int]:
    """Return the candidates nearest to j / k of the last step, j = 1 to k.

    >>> evenly_spaced([2, 4, 6, 8, 16, 24, 32, 40], 5)
    [8, 16, 24, 32, 40]

    Raises:
        ValueError: one candidate is the nearest twice.
    """
    found = [min(steps, key=lambda step, at=steps[-1] * j / k: abs(step - at)) for j in range(1, k + 1)]  # type: ignore[misc]
    if len(set(found)) < k:
        raise ValueError(f"expected candidates for {k} evenly spaced checkpoints, found {len(steps)}: {list(steps)}")
    return found


def pearson(a: Float[np.ndarray, "q n"], b: Float[np.ndarray, "q n"]) -> Float[np.ndarray, " q"]:
    """Return the correlation of each row of a with the same row of b.

    >>> pearson(np.array([[1.0, 2.0, 3.0]]), np.array([[6.0, 4.0, 2.0]])).round(9).tolist()
    [-1.0]

    Raises:
        ValueError: a row is constant, so that it has no correlation.
    """
    a, b = (rows.astype(np.float64) - rows.mean(axis=1, keepdims=True, dtype=np.float64) for rows in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not norms.all():
        raise ValueError(f"the scores of test example {int(np.argmin(norms))} are all equal: no correlation")
    correlations: np.ndarray = np.einsum("qn,qn->q", a, b) / norms
    return correlations


def ranks(rows: Float[np.ndarray, "q n"]) -> Float[np.ndarray, "q n"]:
    """Return the ranks of the numbers within each row, from 1; equal numbers share the mean of their ranks.

    >>> ranks(np.array([[5.0, 7.0, 5.0, 1.0]])).tolist()
    [[2.5, 4.0, 2.5, 1.0]]
    """
    ranked = []
    for row in rows:
        _, places, counts = np.unique(row, return_inverse=True, return_counts=True)
        ranked.append((np.cumsum(counts) - (counts - 1) / 2)[places])
    return np.stack(ranked)


def standard_error(values: Float[np.ndarray, " s"]) -> float:
    """Return the standard error of the mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def found_by(self_influence: Float[np.ndarray, " n"], wrong: Bool[np.ndarray, " n"]) -> float:
    """Return the share of the wrong labels among the examples of the highest self-influence."""
    return noise_curve(wrong[np.argsort(-self_influence, kind="stable")]).at(INSPECTED)


def _candidates(run: Run) -> list[int]:
    return [checkpoint.step for checkpoint in run.checkpoints if checkpoint.step is not None]


def _chosen(run: Run) -> list[int]:
    return [checkpoint.step for checkpoint in choose(run, K).chosen if checkpoint.step is not None]


def _even(run: Run) -> list[int]:
    return evenly_spaced(_candidates(run), K)


STRATEGIES = (
    Strategy("chosen", "learning_rate", _chosen),
    Strategy("chosen", "interval", _chosen),
    Strategy("evenly spaced", "learning_rate", _even),
    Strategy("evenly spaced", "interval", _even),
    Strategy("first only", "learning_rate", lambda run: _candidates(run)[:1]),
    Strategy("last only", "learning_rate", lambda run: _candidates(run)[-1:]),
    Strategy("all", "learning_rate", _candidates),
)
REFERENCE = "evenly spaced"  # what the others are compared with


def scored(strategy: Strategy, run: Run, products: Products) -> tuple[np.ndarray, np.ndarray]:
    """Return scores [q, n] and self-influence [n] of the checkpoints that a strategy takes, weighted as it says."""
    steps = sorted(strategy.steps(run))
    weights = (eta for (eta,) in etas(run.at(steps), strategy.eta))
    return products.weighted(dict(zip(steps, weights, strict=True)))


def outcome(
    strategy: Strategy, pairs: Sequence[Sequence[tuple[Run, Products]]], wrong: Bool[np.ndarray, " n"]
) -> Outcome:
    """Measure a strategy on pairs of runs."""
    linear, monotone, found = [], [], []
    for pair in pairs:
        (scores_a, self_a), (scores_b, self_b) = (scored(strategy, *made) for made in pair)
        linear.append(pearson(scores_a, scores_b))
        monotone.append(pearson(ranks(scores_a), ranks(scores_b)))
        found.append([found_by(self_a, wrong), found_by(self_b, wrong)])
    return Outcome(strategy.title, np.stack(linear), np.stack(monotone), np.array(found))


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a row a strategy, in Markdown."""

    def correlation(values: np.ndarray) -> str:
        by_pair = ", ".join(f"{pair:.3f}" for pair in values.mean(axis=1))
        return f"{values.mean():.3f} ± {standard_error(values.mean(axis=0)):.3f} ({by_pair})"

    def found(values: np.ndarray) -> str:
        by_run = ", ".join(f"{100 * a:.1f} {100 * b:.1f}" for a, b in values)
        return f"{100 * values.mean():.1f}% ± {100 * standard_error(values.ravel()):.1f} ({by_run})"

    head = "| checkpoints | Pearson of two seeds | Spearman | wrong labels found in the first 10% |\n|---|---|---|---|"
    rows = [
        f"| {o.title} | {correlation(o.pearson)} | {correlation(o.spearman)} | {found(o.found)} |" for o in outcomes
    ]
    return "\n".join([head, *rows])


def differences(outcomes: Sequence[Outcome]) -> str:
    """Return, in Markdown, each strategy less the evenly spaced one, on the same runs and test examples."""
    reference = next(o for o in outcomes if o.title == REFERENCE)

    def less(values: np.ndarray, others: np.ndarray, unit: float) -> str:
        change = unit * (values - others)
        return f"{change.mean():+.{1 if unit > 1 else 3}f} ± {standard_error(change):.{1 if unit > 1 else 3}f}"

    rows = [f"| less {REFERENCE} | Pearson | Spearman | found, percentage points |\n|---|---|---|---|"]
    for o in (o for o in outcomes if o is not reference):
        linear = less(o.pearson.mean(axis=0), reference.pearson.mean(axis=0), 1)
        monotone = less(o.spearman.mean(axis=0), reference.spearman.mean(axis=0), 1)
        rows.append(f"| {o.title} | {linear} | {monotone} | {less(o.found.ravel(), reference.found.ravel(), 100)} |")
    return "\n".join(rows)


def taken(setting: Setting, runs: Sequence[Run]) -> str:
    """Say which epochs' checkpoints are used, and how the loss of training went."""

    def epochs(steps: Sequence[int]) -> str:
        return ", ".join(f"{step / setting.steps_per_epoch:.3g}" for step in sorted(steps))

    lines = [f"evenly spaced: epochs {epochs(_even(runs[0]))} of {setting.epochs}"]
    for seed, run in enumerate(runs):
        losses = {round(c.epoch or 0, 2): c.train_loss for c in run.checkpoints}
        shown = ", ".join(f"{losses[e]:.2f}" for e in (1, setting.epochs // 2, setting.epochs))
        lines.append(f"seed {seed}: chosen epochs {epochs(_chosen(run))}; train loss at first, middle, last: {shown}")
    return "\n".join(lines)


def plot(found: dict[str, Sequence[Outcome]], path: Path) -> None:
    """Draw correlations and labels found by strategy, a row a setting."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), 2, squeeze=False)
    for (name, outcomes), (left, right) in zip(found.items(), panels, strict=True):
        at = np.arange(len(outcomes))[::-1]
        for measure, shift, marker in (("pearson", 0.12, "o"), ("spearman", -0.12, "s")):
            values = [getattr(o, measure) for o in outcomes]
            errors = [standard_error(v.mean(axis=0)) for v in values]
            means = [v.mean() for v in values]
            left.errorbar(means, at + shift, xerr=errors, fmt=marker, capsize=3, label=measure.capitalize())
        for o, y in zip(outcomes, at, strict=True):
            right.plot(100 * o.found.ravel(), np.full(o.found.size, y - 0.2), ".", color="silver", zorder=0)
        errors = [100 * standard_error(o.found.ravel()) for o in outcomes]
        right.errorbar([100 * o.found.mean() for o in outcomes], at, xerr=errors, fmt="o", capsize=3)
        left.set(
            yticks=at, yticklabels=[o.title for o in outcomes], xlabel="correlation of two seeds, ± standard error"
        )
        right.set(yticks=at, yticklabels=[], xlabel="wrong labels found in the first 10% (%); grey: single runs")
        left.set_title(SETTINGS[name].title, loc="left")
        left.legend(loc="best")
        for axes in (left, right):
            axes.grid(axis="x", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(tempfile.gettempdir()) / "proponent-checkpoint-choice"
    parser.add_argument("--settings", default=",".join(SETTINGS), help="of mnist, cifar10; CIFAR-10 needs its file")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs, seeds (0, 1), (2, 3), ... (default 3)")
    parser.add_argument("--work", type=Path, default=default, help=f"runs and products are kept here ({default})")
    parser.add_argument(
        "--prepare", metavar="SEEDS", help="only train and score these seeds, as in 0,1; print no table"
    )
    parser.add_argument(
        "--plot", action="store_true", help=f"also draw {FIGURE.name}, and the choice of seed 0 beside it"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.settings.split(",")) - SETTINGS.keys()
    if unknown:
        parser.error(f"--settings: expected some of {', '.join(SETTINGS)}, found {', '.join(sorted(unknown))}")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    found: dict[str, Sequence[Outcome]] = {}
    for setting in (SETTINGS[name] for name in options.settings.split(",")):
        seeds = range(2 * options.pairs) if options.prepare is None else map(int, options.prepare.split(","))
        made = [
            run_and_products(setting, seed, options.work, lambda said: print(said, file=sys.stderr)) for seed in seeds
        ]
        if options.prepare is not None:
            continue
        pairs = [made[i : i + 2] for i in range(0, len(made), 2)]
        found[setting.name] = [outcome(strategy, pairs, setting.wrong()) for strategy in STRATEGIES]
        print(f"\n{setting.title}; {setting.epochs} epochs, runs in pairs: {options.pairs}\n")
        print(table(found[setting.name]), differences(found[setting.name]), sep="\n\n")
        print("", taken(setting, [run for run, _ in made]), sep="\n")
        if options.plot:
            plot_choice(choose(made[0][0], K), made[0][0], FIGURE.with_stem(f"{FIGURE.stem}_{setting.name}"))
    if options.plot and found:
        plot(found, FIGURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
