"""The command line: ``proponent``. Only this table is loaded for ``--help``; a command's code when it is called.

Importing torch takes seconds, and `proponent --help` should not; so each command names its place, and `importlib`
brings it in when it is run. A test holds the texts here and the commands' own docstrings together.
"""

import importlib
import sys
from collections.abc import Sequence

import typer

COMMANDS = {
    "demo": ("indexer.cli.demo:app", "Train a small model on real data that ships with Proponent, and index it."),
    "build": (
        "indexer.cli.build:build",
        "Build an index: the projected gradients of every training example at every checkpoint.",
    ),
    "checkpoints": (
        "indexer.cli.checkpoints:app",
        "Show the checkpoints of a training run, and choose among them.",
    ),
    "inspect": (
        "indexer.cli.inspect:inspect",
        "Show what an index is, or what a build of a task would do with each parameter and what that would cost.",
    ),
    "verify": (
        "indexer.cli.verify:verify",
        "Hash every file of an index in full, and name each one that has changed, is missing or is cut off.",
    ),
    "versions": (
        "indexer.cli.versions:app",
        "Show the versions of an index, choose which one is served, and remove the others.",
    ),
    "append": (
        "indexer.cli.edit:append",
        "Add training rows of the task to an index, with the checkpoints and bases that it was built with.",
    ),
    "delete": ("indexer.cli.edit:delete", "Take training examples out of the answers of an index. Needs no task."),
    "relabel": (
        "indexer.cli.edit:relabel",
        "Give training examples of an index other labels; of a regression, other targets.",
    ),
    "compact": (
        "indexer.cli.edit:compact",
        "Copy what an index answers with into new files, without deleted rows. Needs no task.",
    ),
    "rebuild-search": (
        "indexer.cli.edit:rebuild_search",
        "Fit the search of an index again, on the rows that it has now. Needs no task.",
    ),
    "query": ("indexer.cli.query:query", "Ask which training examples made the model say that."),
    "mislabeled": (
        "indexer.cli.mislabeled:mislabeled",
        "Rank training examples by self-influence, wrong labels first, and write them to a CSV file.",
    ),
    "evaluate": ("indexer.cli.evaluate:app", "Measure how right an index is, and what it finds."),
    "serve": (
        "service.serve:serve",
        "Serve indexes over HTTP: the API under /v1, its description at /docs, a page of pictures at /.",
    ),
}


def make_cli(wanted: Sequence[str]) -> typer.Typer:
    """Return the command line, with the code of the wanted commands and only the help of the others."""
    cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    cli.callback()(proponent)
    for name, (place, text) in COMMANDS.items():
        if name not in wanted:
            cli.command(name, help=text)(_not_loaded)
            continue
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if isinstance(command, typer.Typer):
            cli.add_typer(command, name=name)
        else:
            cli.command(name)(command)
    return cli


def proponent() -> None:
    """Which training examples made this model say that?

    A first answer in three lines:

        proponent demo mnist

        proponent query indexes/mnist --task indexer.recipes.mnist:task --example test/17

        proponent serve indexes/mnist --task indexer.recipes.mnist:task
    """


def _not_loaded() -> None:
    """Stands in for a command whose code is not needed."""


def main() -> None:
    """Run the command line; an error of ours is one line on standard error and exit status 1."""
    try:
        make_cli(sys.argv[1:2])()
    except Exception as exc:  # the outermost handler of the command line
        if not isinstance(exc, importlib.import_module("indexer.errors").ProponentError):
            raise
        typer.echo(f"proponent: {exc}", err=True)
        sys.exit(1)
