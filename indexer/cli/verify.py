"""``proponent verify``."""

from pathlib import Path
from typing import Annotated

import typer

from indexer.index.versions import open_version


def verify(index: Annotated[Path, typer.Argument(help="Folder of the index.", metavar="INDEX")]) -> None:
    """Hash every file of an index in full, and name the first that has changed.

    Example: proponent verify indexes/mnist
    """
    version = open_version(index)
    typer.echo(f"manifest  {version.fingerprint}")
    for role, ref in version.verify():
        typer.echo(f"ok  {ref.sha256[:16]}  {ref.bytes:>13,} bytes  {role}")
    typer.echo(f"{index}: version {version.version} is as it was built")
