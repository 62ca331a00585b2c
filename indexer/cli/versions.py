"""``proponent versions``: list, activate, prune."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from indexer.errors import CorruptIndexError
from indexer.index.prune import Pruned
from indexer.index.prune import prune as prune_index
from indexer.index.versions import IndexVersion, active_version, read_version, version_names, versions_of
from indexer.index.versions import activate as activate_version

app = typer.Typer(
    no_args_is_help=True, help="Show the versions of an index, choose which one is served, and remove the others."
)

_SHORT = 8  # digits of a parent's name: enough to find it in the table

Index = Annotated[Path, typer.Argument(help="Folder of the index.", metavar="INDEX")]


@dataclass(frozen=True, slots=True)
class Line:
    """One version as it is listed.

    made_by: build, or the edit; rows: that can be answered; new_bytes: of objects that its parent does not have, null
    where the parent is not there to compare with; fault: why it cannot be opened.
    """

    version: str
    active: bool
    made_by: str | None = None
    parent: str | None = None
    rows: int | None = None
    deleted: int | None = None
    segments: int | None = None
    bytes: int | None = None
    new_bytes: int | None = None
    fault: str | None = None


@app.command("list")
def list_versions(
    index: Index, as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False
) -> None:
    """Every version of an index, oldest first: what made it, how many rows it answers, and what it costs.

    Example: proponent versions list indexes/mnist

    Versions share the files that are the same, so a version costs its new bytes. One that cannot be read is listed too.
    """
    lines = _lines(index)
    if as_json:
        typer.echo(orjson.dumps([asdict(line) for line in lines], option=orjson.OPT_INDENT_2).decode())
        return
    console = Console(markup=False)
    console.print(_table(lines))
    for line in lines:
        if line.fault is not None:
            console.print(f"{line.version}: {line.fault}", style="yellow", soft_wrap=True, highlight=False)


@app.command()
def activate(
    index: Index,
    version: Annotated[str, typer.Argument(help="The version, by at least four of its digits.", metavar="VERSION")],
) -> None:
    """Make a version the active one: what is opened and served, and what the next edit starts from.

    Example: proponent versions activate indexes/mnist 3fa1

    A server that runs goes on with the version it opened. Every file of the version must be there in its size;
    `proponent verify` says whether their bytes are right.
    """
    opened = activate_version(index, version)
    typer.echo(f"{index}: version {opened.version} is active, with {opened.manifest.rows:,} training examples")


@app.command()
def prune(
    index: Index,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="A version that stays, by at least four of its digits; give it several times for several."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove every version but the active one and those to keep, and every file that no other version needs.

    Example: proponent versions prune indexes/mnist --keep 3fa1

    At a terminal you are shown what goes and asked once; elsewhere, as in a script, it goes at once. What is removed
    cannot be brought back. A server that has a removed version open goes on answering from it until it is restarted.
    """
    wanted = keep or []
    planned = prune_index(index, wanted, dry_run=True)
    for version in planned.versions:
        typer.echo(f"version {version}")
    if not (planned.versions or planned.files):
        typer.echo(f"{index}: nothing to remove; version {active_version(index)} is active")
        return
    if dry_run:
        typer.echo(f"{index}: {_words(planned)} would be removed")
        return
    if not yes and _at_terminal():
        typer.confirm(f"{index}: remove {_words(planned)}?", abort=True)
    removed = prune_index(index, wanted)
    typer.echo(f"{index}: {_words(removed)} removed; version {active_version(index)} is active")


def _words(pruned: Pruned) -> str:
    counts = (("version", len(pruned.versions)), ("object", len(pruned.files)), ("byte", pruned.bytes))
    return ", ".join(f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in counts)


def _at_terminal() -> bool:
    return typer.get_text_stream("stdin").isatty()


def _lines(index: Path) -> list[Line]:
    try:
        active = active_version(index)
    except CorruptIndexError:  # it names none that there is: no line says that it is active
        active = ""
    found = versions_of(index)
    manifests = {version.version: version for version in found}
    broken = sorted({*version_names(index), active} - {"", *manifests})
    return [
        *(_line(version, manifests, active) for version in found),
        *(Line(name, name == active, fault=_fault(index, name)) for name in broken),
    ]


def _line(version: IndexVersion, known: dict[str, IndexVersion], active: str) -> Line:
    manifest = version.manifest
    objects = set(manifest.objects().values())
    parent = known.get(manifest.parent or "")
    older = set() if parent is None else set(parent.manifest.objects().values())
    comparable = manifest.parent is None or parent is not None
    try:
        version.check_sizes()
        fault = None
    except CorruptIndexError as exc:
        fault = str(exc)
    return Line(
        version.version,
        version.version == active,
        made_by=manifest.edit or "build",
        parent=manifest.parent,
        rows=manifest.rows,
        deleted=manifest.vectors.rows - manifest.rows,
        segments=len(manifest.examples),
        bytes=sum(ref.bytes for ref in objects),
        new_bytes=sum(ref.bytes for ref in objects - older) if comparable else None,
        fault=fault,
    )


def _fault(index: Path, name: str) -> str:
    try:
        read_version(index, name)
    except CorruptIndexError as exc:
        return str(exc)
    return "was written in the meantime; list again"


def _table(lines: list[Line]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)  # so that it mostly fits into 80 columns
    for name in ("version", "", "made by", "parent"):
        table.add_column(name, no_wrap=True)
    for name in ("rows", "deleted", "segments", "size", "new"):
        table.add_column(name, justify="right", overflow="fold")
    for line in lines:
        state = "active" if line.active else ""
        counts = ("-" if count is None else f"{count:,}" for count in (line.rows, line.deleted, line.segments))
        sizes = ("-" if size is None else decimal(size) for size in (line.bytes, line.new_bytes))
        table.add_row(
            line.version,
            f"{state} broken".strip() if line.fault is not None else state,
            line.made_by or "-",
            (line.parent or "-")[:_SHORT],
            *counts,
            *sizes,
        )
    return table
