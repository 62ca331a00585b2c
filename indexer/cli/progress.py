"""Progress bars for long work, on standard error, so that standard output stays clean for results."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from indexer.building.estimate import Estimate
from indexer.building.progress import Progress as OnProgress

console = Console(stderr=True, markup=False)


@contextmanager
def bars() -> Iterator[OnProgress]:
    """Yield a callback (stage, done, total) that draws one bar a stage."""
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        yield show


def announce(estimate: Estimate) -> None:
    """Say what a build will take, and where it goes on."""
    if estimate.there:
        console.print(f"going on with a build that was stopped: {estimate.there:,} rows are there", soft_wrap=True)
    console.print(estimate.line(), style="dim", soft_wrap=True)
