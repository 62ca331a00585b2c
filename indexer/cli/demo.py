"""``proponent demo``."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from indexer.building.build import build
from indexer.building.spec import BuildSpec
from indexer.checkpoints.formats.listing import LISTING
from indexer.cli.progress import announce, bars, console
from indexer.index.versions import is_index
from indexer.recipes import mnist as recipe
from indexer.recipes.train import train

app = typer.Typer(
    no_args_is_help=True, help="Train a small model on real data that ships with Proponent, and index it."
)


@app.callback()
def demos() -> None:
    """Train a small model on real data that ships with Proponent, and index it."""


@app.command()
def mnist(
    home: Annotated[Path, typer.Option(help="Folder to make runs/mnist and indexes/mnist in.")] = Path(),
) -> None:
    """Train a small network on 4,500 real digits, 5% of them labelled wrong on purpose, and build its index.

    What is already there is kept; remove runs/mnist and indexes/mnist to start over.
    """
    run, index = home / "runs" / "mnist", home / "indexes" / "mnist"
    with bars() as progress:
        if not (run / LISTING).is_file():
            train(recipe.task, recipe.SCHEDULE, run, progress)
        if not is_index(index):
            build(recipe.task, BuildSpec(run), index, progress, announce=announce)
    console.print("one training label in twenty is wrong on purpose: look for them among the proponents", style="dim")
    next_line = f"{index} is ready; next: proponent serve {quote(str(index))} --task indexer.recipes.mnist:task"
    console.print(next_line, soft_wrap=True)
