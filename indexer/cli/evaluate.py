"""``proponent evaluate``: exact, noise."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from indexer.building.spec import BuildSpec
from indexer.cli.options import DEFAULT_ETA, Checkpoints, Choose, Eta, Steps, parse_steps
from indexer.cli.progress import bars
from indexer.errors import TaskError
from indexer.evaluate.exact import exact_scores
from indexer.evaluate.label_noise import by_self_influence, plot_noise
from indexer.evaluate.pictures import check_picture
from indexer.index.examples import Examples
from indexer.index.versions import open_version
from indexer.task import load_name, load_task

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
) -> None:
    """How many wrong labels come first when the training set is sorted by self-influence.

    Example: proponent evaluate noise indexes/mnist --true-labels indexer.recipes.mnist:true_labels --plot noise.png

    Raises:
        TaskError: the name is not a list of labels.
    """
    if plot is not None:
        check_picture(plot)
    version = open_version(index)
    examples = Examples(version.objects.path(version.manifest.examples[0].object))
    found = load_name(true_labels)
    if not isinstance(found, Iterable):
        raise TaskError(f"{true_labels!r}: expected a list of labels, found {type(found).__name__}")
    curve = by_self_influence(examples, list(found))
    typer.echo(f"{curve.wrong} wrong labels among {len(curve.found):,} training examples")
    for share in (0.05, 0.10, 0.20, 0.30):
        found = curve.at(share)
        typer.echo(
            f"in the first {share:4.0%} by self-influence: {found:6.1%} found, {found / share:4.1f} times chance"
        )
    if plot is not None:
        plot_noise(curve, f"Wrong labels found, {version.name}", plot)
        typer.echo(f"drawn to {plot}")
