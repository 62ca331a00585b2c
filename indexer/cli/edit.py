"""``proponent append``, ``delete``, ``relabel``, ``compact`` and ``rebuild-search``: each makes a new version."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from indexer.cli.edit_input import ids_of, labels_of, parse_rows
from indexer.cli.progress import bars
from indexer.editing.append import append as append_rows
from indexer.editing.compact import compact as compact_index
from indexer.editing.delete import delete as delete_rows
from indexer.editing.rebuild_search import rebuild_search as fit_search_again
from indexer.editing.relabel import relabel as relabel_rows
from indexer.index.versions import IndexVersion, open_version
from indexer.task import load_task

Index = Annotated[Path, typer.Argument(help="Folder of the index.", metavar="INDEX")]
TaskName = Annotated[str, typer.Option(help="The task that the index was built with.")]


def append(
    index: Index,
    task: TaskName,
    rows: Annotated[
        str | None,
        typer.Option(help="Rows of task.train, as in '10-20,31'; else all after the last that the index ever had."),
    ] = None,
) -> None:
    """Add training rows of the task to an index, with the checkpoints and bases that it was built with.

    Example: proponent append indexes/mnist --task indexer.recipes.mnist:task

    Rows that are named may bring back deleted ones.
    """
    before = open_version(index)
    with bars() as progress:
        loaded = load_task(task)
        wanted = None if rows is None else parse_rows(rows, len(loaded.train))
        after = append_rows(index, loaded, wanted, progress)
    _say(index, before, after)


def delete(
    index: Index,
    ids: Annotated[str | None, typer.Option(help="Training examples by id, as in '17,204'.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file of ids: one a line, or the column id of a CSV file.")
    ] = None,
) -> None:
    """Take training examples out of the answers of an index. Needs no task.

    Example: proponent delete indexes/mnist --ids 17,204

    A file that `proponent mislabeled` wrote serves as it is, cut to the examples that shall go. Vectors and previews of
    deleted examples leave the disk with `proponent compact` and `proponent versions prune`.
    """
    before = open_version(index)
    _say(index, before, delete_rows(index, ids_of(ids, file)))


def relabel(
    index: Index,
    task: TaskName,
    label: Annotated[
        list[str] | None, typer.Option(help="An id and its new label, as in '17=5'. May be repeated.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A CSV file with the columns id and label.")] = None,
) -> None:
    """Give training examples of an index other labels; of a regression, other targets.

    Example: proponent relabel indexes/mnist --task indexer.recipes.mnist:task --label 17=5 --label 204=3

    Their gradients are made again. The label of the index counts from then on, whatever the task's data say.
    """
    before = open_version(index)
    labels = labels_of(label or (), file)
    with bars() as progress:
        after = relabel_rows(index, load_task(task), labels, progress)
    _say(index, before, after)


def compact(index: Index) -> None:
    """Copy what an index answers with into new files, without deleted rows. Needs no task.

    Example: proponent compact indexes/mnist

    Room on the disk comes with `proponent versions prune`, which removes the versions before.
    """
    before = open_version(index)
    with bars() as progress:
        after = compact_index(index, progress)
    _say(index, before, after)


def rebuild_search(index: Index) -> None:
    """Fit the search of an index again, on the rows that it has now. Needs no task.

    Example: proponent rebuild-search indexes/mnist

    Rows that were appended since it was fitted are scanned one by one until then.
    """
    before = open_version(index)
    _say(index, before, fit_search_again(index))


def _say(index: Path, before: IndexVersion, after: IndexVersion) -> None:
    rows = f"{before.manifest.rows:,} training examples before, {after.manifest.rows:,} now"
    typer.echo(f"{index}: {rows}; version {after.version}")
    typer.echo(f"go back: proponent versions activate {quote(str(index))} {before.version}")
