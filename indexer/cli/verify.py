"""``proponent verify``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from indexer.cli.progress import console
from indexer.errors import CorruptIndexError
from indexer.index.audit import Audit, Checked, audit
from indexer.index.prune import size_of


def verify(
    index: Annotated[Path, typer.Argument(help="Folder of the index.", metavar="INDEX")],
    version: Annotated[
        str | None, typer.Option(help="Only this version, by at least four of its digits; else all of them.")
    ] = None,
) -> None:
    """Hash every file of an index in full, and name each one that has changed, is missing or is cut off.

    Example: proponent verify indexes/mnist

    Files that versions share are hashed once. Status 1 if anything is wrong; files that no version names are not.

    Raises:
        CorruptIndexError: a file is not as it was written.
    """
    found = audit(index, version)
    wrong = 0
    for checked in found.seen:
        wrong += _show(checked)
    with Progress(
        TextColumn("hashing"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console
    ) as progress:
        bar = progress.add_task("hashing", total=found.bytes)
        for checked in found.check(lambda done: progress.advance(bar, done)):
            wrong += _show(checked)
    _show_unreferenced(found)
    files = len(found.seen) + len(found.roles)
    if wrong:
        raise CorruptIndexError(
            f"{wrong} of {files} files of {str(index)!r} are not as they were written; restore them from a copy, "
            "activate a version that is whole, or rebuild with `proponent build`"
        )
    named = f"version {found.versions[0]}" if len(found.versions) == 1 else f"{len(found.versions)} versions"
    typer.echo(f"{index}: {named}, {files} files, as they were written")


def _show(checked: Checked) -> bool:
    """Print a file, and say whether something is wrong with it."""
    state = "ok" if checked.fault is None else "WRONG"
    why = "" if checked.fault is None else f": {checked.fault}"
    typer.echo(f"{state:<5}  {checked.path.name:<16.16}  {checked.bytes:>13,} bytes  {checked.role}{why}")
    return checked.fault is not None


def _show_unreferenced(found: Audit) -> None:
    for path in found.unreferenced:
        typer.echo(f"{'spare':<5}  {path.name:<16.16}  {size_of(path):>13,} bytes  no version names it")
    if found.unreferenced:
        typer.echo("`proponent versions prune` removes what no version names")
