"""Wrong labels found against examples inspected: by self-influence, by training loss and at random; and by class.

    PROPONENT_DATA=data python -m benchmarks.label_noise --work runs/label_noise

A tenth of the labels of MNIST (60,000 digits) and of CIFAR-10 (5,000 images) is wrong: the most likely wrong class, as
`benchmarks.noise_runs` says. Three orders of inspection of the training set:

    self-influence   sum over five checkpoints, from the table of an index that `indexer.build` made
    training loss    at the given label, by the model at the last checkpoint
    at random        in expectation: what is inspected is found

By class, as figure 8 of the TracIn paper: the first 10% by the self-influence of one checkpoint alone, for the first,
the middle and the last one, and which share of the wrong labels of each true class they hold.

Nothing was tuned to these numbers: models, schedules and seeds are those of the recipes. One training each.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.noise_runs import SETTINGS, NoisyRun, Setting, noisy_run
from indexer.evaluate.label_noise import (
    ClassFound,
    LabelledExamples,
    NoiseCurve,
    by_numbers,
    early_middle_last,
    found_by_class,
    labelled_examples,
)
from indexer.evaluate.noise_plot import plot_by_class, plot_noise

SHARES = (0.05, 0.10, 0.20, 0.30)  # of the training examples
BY_CLASS = 0.10
FIGURE = Path(__file__).parent / "figures" / "label_noise.png"
SELF_INFLUENCE, LOSS = "self-influence", "training loss"


def orders(run: NoisyRun, labelled: LabelledExamples) -> dict[str, NoiseCurve]:
    """Return the curves of the orders that are measured."""
    return {
        SELF_INFLUENCE: by_numbers(labelled.self_influence.sum(axis=1), labelled.wrong),
        LOSS: by_numbers(run.losses, labelled.wrong),
    }


def by_class(run: NoisyRun, labelled: LabelledExamples) -> dict[str, list[ClassFound]]:
    """Return what the first, the middle and the last checkpoint find of each class, by the names of their epochs."""
    shown = early_middle_last(len(run.epochs))
    return {f"epoch {run.epochs[i]:g}": found_by_class(labelled, i, BY_CLASS) for i in shown}


def table(curves: Mapping[str, NoiseCurve]) -> str:
    """Return a row an order, in Markdown, with chance and the best possible order below."""
    first = next(iter(curves.values()))
    rows = [(name, [curve.at(share) for share in SHARES]) for name, curve in curves.items()]
    rows.append(("at random, expected", list(SHARES)))
    rows.append(("best possible", [min(1.0, share * len(first.found) / first.wrong) for share in SHARES]))
    head = f"| wrong labels found in the first | {' | '.join(f'{share:.0%}' for share in SHARES)} |"
    lines = [f"| {name} | {' | '.join(f'{found:.1%}' for found in cells)} |" for name, cells in rows]
    return "\n".join([head, "|---" * (len(SHARES) + 1) + "|", *lines])


def class_table(found: Mapping[str, Sequence[ClassFound]]) -> str:
    """Return a row a true class, in Markdown, and one of all classes together."""
    lines = [f"| true class | wrong labels | {' | '.join(found)} |", "|---" * (len(found) + 2) + "|"]
    for of_class in zip(*found.values(), strict=True):
        cells = " | ".join(f"{one.share:.1%}" for one in of_class)
        lines.append(f"| {of_class[0].label} | {of_class[0].wrong} | {cells} |")
    wrong = sum(one.wrong for one in next(iter(found.values())))
    totals = " | ".join(f"{sum(one.found for one in classes) / wrong:.1%}" for classes in found.values())
    return "\n".join([*lines, f"| all | {wrong} | {totals} |"])


def report(setting: Setting, run: NoisyRun) -> None:
    """Print the tables of a setting and draw its two pictures."""
    labelled = labelled_examples(run.examples, run.true_labels)
    curves, classes = orders(run, labelled), by_class(run, labelled)
    wrong = curves[SELF_INFLUENCE].wrong
    print(f"\n{setting.title}, {wrong:,} labels wrong. Of the model trained on them, at its last checkpoint:")
    print(f"{run.accuracy:.1%} of the test set right, {run.learnt:.1%} of the wrong labels learnt\n")
    print(table(curves), f"By the self-influence of one checkpoint, first {BY_CLASS:.0%}:", sep="\n\n", end="\n\n")
    print(class_table(classes))
    drawn = FIGURE.with_stem(f"{FIGURE.stem}_{setting.name}")
    plot_noise({f"by {name}": curve for name, curve in curves.items()}, f"Wrong labels found, {setting.title}", drawn)
    plot_by_class(classes, BY_CLASS, f"By one checkpoint, {setting.title}", drawn.with_stem(f"{drawn.stem}_by_class"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of each setting and draw their pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="runs and indexes are kept here")
    parser.add_argument("--only", choices=list(SETTINGS), help="one of the two data sets")
    parser.add_argument(
        "--clean-seed", type=int, default=0, metavar="N",
        help="first weights and batches of the training on right labels, which says what wrong class is likely; "
        "with 0, the default, they are those of the training on wrong labels, the hardest case",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    data = Path(os.environ.get("PROPONENT_DATA", "data"))
    for name in [options.only] if options.only else SETTINGS:
        setting = SETTINGS[name].with_clean_seed(options.clean_seed)
        run = noisy_run(setting, data, options.work, lambda said: print(said, file=sys.stderr))
        report(setting, run)
        run.examples.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
