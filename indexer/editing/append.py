"""Append: training rows of the task that an index does not have yet."""

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from indexer.ask.opening import OpenIndex
from indexer.building.plan import running
from indexer.building.progress import Progress, silent
from indexer.editing.adding import NewRows, add_rows, open_to_add
from indexer.editing.edit import editing
from indexer.editing.named import listed
from indexer.errors import BuildError
from indexer.index.versions import IndexVersion
from indexer.task import Task


def append(
    folder: str | Path, task: Task, rows: Sequence[int] | None = None, progress: Progress = silent
) -> IndexVersion:
    """Make a version with more rows of task.train, and return it; ids are the numbers of the rows.

    rows: which; a deleted one comes back so, and new ones leave none out before them. None takes all after the last
    that the index has ever had.

    Raises:
        UnknownIndexError: the folder holds no finished index.
        CorruptIndexError: a file of the index has changed.
        TaskMismatchError: the task is not the one that the index was built with.
        TaskError: a row is not an example as the others are.
        BuildError: there is nothing to append, a row is no row of task.train or in the index already, rows before it
            were never in it, the method is fitted on all rows, or another edit is at work.
    """
    with editing(folder, "append") as edit:
        plan = edit.before.manifest.plan
        with running(plan.threads):
            index = open_to_add(edit, task)
            with closing(index.examples):
                wanted = _new_rows(index, task) if rows is None else _chosen_rows(index, task, rows)
                return edit.commit(**add_rows(edit, index, NewRows(task, wanted, {}), progress))


def _new_rows(index: OpenIndex, task: Task) -> Sequence[int]:
    first, total = _next_row(index), len(task.train)
    if first >= total:
        raise BuildError(
            f"append: task.train has {total:,} rows, and index {index.version.name!r} has taken in all of them; name "
            "rows to bring back deleted ones"
        )
    return range(first, total)


def _next_row(index: OpenIndex) -> int:
    """Return the row after the last that the index has ever had."""
    return max(index.examples.next_row("train"), index.version.manifest.next_row or 0)


def _chosen_rows(index: OpenIndex, task: Task, rows: Sequence[int]) -> Sequence[int]:
    chosen, total = sorted(set(rows)), len(task.train)
    if not chosen:
        raise BuildError("append: expected numbers of rows, found none")
    outside = [row for row in chosen if not 0 <= row < total]
    if outside:
        raise BuildError(f"append: expected rows from 0 to {total - 1} of task.train, found {outside[0]}")
    _refuse_gap(index, chosen)
    ids = [str(row) for row in chosen]
    present = index.examples.at(index.examples.positions(None, ids, (), (None, None)).tolist())
    if present:
        raise BuildError(
            f"append: {len(present):,} of {len(ids):,} rows are in index {index.version.name!r} already: "
            f"{listed([example.id for example in present])}; nothing was changed"
        )
    return chosen


def _refuse_gap(index: OpenIndex, chosen: Sequence[int]) -> None:
    """Refuse rows that leave out new ones before them: those would count as taken in ever after.

    Raises:
        BuildError: with the first rows that are left out.
    """
    first = _next_row(index)
    for row in chosen[bisect_left(chosen, first) :]:
        if row > first:
            gap = f"row {first}" if row == first + 1 else f"rows {first} to {row - 1}"
            raise BuildError(
                f"append: {gap} of task.train were never in index {index.version.name!r}, and come before row {row}; "
                "append those as well, and delete then what shall not be answered; nothing was changed"
            )
        first = row + 1
