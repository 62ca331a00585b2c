"""``proponent evaluate``: exact, noise."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from indexer.building.spec import BuildSpec
from indexer.cli.options import DEFAULT_ETA, Checkpoints, Choose, Eta, Steps, parse_steps
from indexer.cli.progress import bars
from indexer.errors import TaskError
from indexer.evaluate.exact import exact_scores
from indexer.evaluate.label_noise import (
    LabelledExamples,
    by_numbers,
    early_middle_last,
    found_by_class,
    labelled_examples,
)
from indexer.evaluate.noise_plot import plot_noise
from indexer.evaluate.pictures import check_picture
from indexer.index.examples import open_examples
from indexer.index.manifest import CheckpointEntry
from indexer.index.versions import open_version
from indexer.task import load_name, load_task

BY_CLASS = 0.10  # share of the examples that is inspected for the counts by class

app = typer.Typer(no_args_is_help=True, help="Measure how right an index is, and what it finds.")


@app.command()
def exact(
    task: Annotated[str, typer.Argument(help="The task: 'path.py:name' or 'module:name'.", metavar="TASK")],
    checkpoints: Checkpoints,
    out: Annotated[Path, typer.Option(help="Folder for exact.npy [queries, rows] and self_exact.npy [rows].")],
    queries: Annotated[
        int, typer.Option(min=1, help="Ask about the first so many test examples, at their own labels.")
    ] = 50,
    choose: Choose = None,
    steps: Steps = None,
    eta: Eta = None,
) -> None:
    """Exact scores by factor products in float64, streamed: nothing projected, no index needed.

    Example: proponent evaluate exact digits.py:task --checkpoints runs/digits --out exact
    """
    with bars() as progress:
        spec = BuildSpec(checkpoints, choose=choose, steps=parse_steps(steps), eta=eta or DEFAULT_ETA)
        found = exact_scores(load_task(task), spec, queries=queries, progress=progress)
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "exact.npy", found.scores)
    np.save(out / "self_exact.npy", found.self_influence.sum(axis=1))
    typer.echo(f"{out}: exact scores of {queries} queries against {found.scores.shape[1]:,} training examples")


@app.command()
def noise(
    index: Annotated[Path, typer.Argument(help="Folder of the index.", metavar="INDEX")],
    true_labels: Annotated[
        str, typer.Option(help="The right labels in training order: 'path.py:name' or 'module:name'.")
    ],
    plot: Annotated[Path | None, typer.Option(help=r"Draw the curve to this file (needs proponent\[plot]).")] = None,
    by_class: Annotated[
        bool, typer.Option(help="Also count what the first, the middle and the last checkpoint find of each class.")
    ] = False,
) -> None:
    """How many wrong labels come first when the training set is sorted by self-influence.

    Example: proponent evaluate noise indexes/mnist --true-labels indexer.recipes.mnist:true_labels --plot noise.png

    Raises:
        TaskError: the name is not a list of labels.
    """
    if plot is not None:
        check_picture(plot)
    version = open_version(index)
    examples = open_examples(version.objects, version.manifest)
    found = load_name(true_labels)
    if not isinstance(found, Iterable):
        raise TaskError(f"{true_labels!r}: expected a list of labels, found {type(found).__name__}")
    labelled = labelled_examples(examples, list(found))
    curve = by_numbers(labelled.self_influence.sum(axis=1), labelled.wrong)
    typer.echo(f"{curve.wrong} wrong labels among {len(curve.found):,} training examples")
    for share in (0.05, 0.10, 0.20, 0.30):
        found = curve.at(share)
        typer.echo(
            f"in the first {share:4.0%} by self-influence: {found:6.1%} found, {found / share:4.1f} times chance"
        )
    if by_class:
        _echo_by_class(labelled, version.manifest.checkpoints)
    if plot is not None:
        plot_noise({"by self-influence": curve}, f"Wrong labels found, {version.name}", plot)
        typer.echo(f"drawn to {plot}")


def _echo_by_class(labelled: LabelledExamples, checkpoints: Sequence[CheckpointEntry]) -> None:
    """Print a line a class: wrong labels, and how many the first examples by one checkpoint's self-influence hold."""
    shown = early_middle_last(len(checkpoints))
    columns = [found_by_class(labelled, i, BY_CLASS) for i in shown]
    typer.echo(f"\nin the first {BY_CLASS:.0%} by the self-influence of one checkpoint, by true class:")
    names = [checkpoints[i].file for i in shown]
    typer.echo("  ".join([f"{'class':<16}", f"{'wrong':>6}", *(f"{name:>16}" for name in names)]))
    for of_class in zip(*columns, strict=True):
        cells = [f"{found.found:>8} {found.share:>7.1%}" for found in of_class]
        typer.echo("  ".join([f"{of_class[0].label:<16}", f"{of_class[0].wrong:>6}", *cells]))
