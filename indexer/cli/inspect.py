"""``proponent inspect``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from indexer.index.versions import IndexVersion, open_version


def inspect(
    index: Annotated[Path, typer.Argument(help="Folder of the index.", metavar="INDEX")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show what an index is: method, checkpoints, parameter blocks and the path of each, vectors, examples.

    Example: proponent inspect indexes/mnist
    """
    version = open_version(index)
    console = Console()
    if as_json:
        console.print_json(version.manifest.model_dump_json())
        return
    for table in (_facts(version), _checkpoints(version), _blocks(version)):
        console.print(table)


def _facts(version: IndexVersion) -> Table:
    manifest = version.manifest
    vectors = manifest.vectors
    table = Table("index", version.name, title_justify="left")
    table.add_row("version", version.version)
    table.add_row("method", f"{manifest.method.name} {manifest.method.parameters}")
    table.add_row("vectors", f"{vectors.rows:,} of {vectors.width:,} float32 numbers, {4 * vectors.width:,} bytes each")
    table.add_row("examples", ", ".join(f"{count:,} {split}" for split, count in manifest.splits.items()))
    table.add_row("input", str(manifest.task.input))
    table.add_row("labels", "none: a regression" if manifest.task.labels is None else ", ".join(manifest.task.labels))
    passes = manifest.sequential or "all checkpoints in one vectorised pass"
    table.add_row("a query", passes)
    table.add_row("plan", f"batches of {manifest.plan.batch_size}, {manifest.plan.threads} threads")
    return table


def _checkpoints(version: IndexVersion) -> Table:
    table = Table("checkpoint", "eta", "step", "epoch", "train loss")
    for entry in version.manifest.checkpoints:
        loss = "" if entry.train_loss is None else f"{entry.train_loss:.4f}"
        epoch = "" if entry.epoch is None else f"{entry.epoch:g}"
        table.add_row(entry.file, f"{entry.eta:g}", "" if entry.step is None else str(entry.step), epoch, loss)
    return table


def _blocks(version: IndexVersion) -> Table:
    table = Table("parameters", "shape", "path", "rule, or why not")
    for block in version.manifest.blocks:
        table.add_row(" + ".join(block.parameters), f"{block.shape[0]} x {block.shape[1]}", block.path, block.note)
    return table
