"""``proponent build``."""

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from indexer.building.build import build as build_index
from indexer.building.spec import DEFAULT_PROJECTION, BuildSpec, read_spec
from indexer.cli.options import DEFAULT_ETA, Checkpoints, Choose, Eta, Steps, parse_steps
from indexer.cli.progress import announce, bars, console
from indexer.errors import BuildError
from indexer.index.card import CardEntry
from indexer.projection.pca import DEFAULT_BYTES, SMALLEST_BYTES
from indexer.task import load_task


def build(
    task: Annotated[str, typer.Argument(help="The task: 'path.py:name' or 'module:name'.", metavar="TASK")],
    checkpoints: Checkpoints,
    out: Annotated[Path, typer.Option(help="Folder to build the index in; it must not hold one yet.")],
    choose: Choose = None,
    steps: Steps = None,
    eta: Eta = None,
    projection: Annotated[
        str | None,
        typer.Option(
            help="pca (default; fitted on a sample); or without data countsketch, rank1 or gaussian, with how many "
            "numbers a checkpoint: 'rank1:1024'; or identity."
        ),
    ] = None,
    bytes_per_example: Annotated[
        int | None,
        typer.Option(
            min=SMALLEST_BYTES,
            help=f"Store at most so many bytes a training example, all checkpoints together (pca: {DEFAULT_BYTES}).",
        ),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            help="Index only the parameters that fit: 'encoder.*', 'head.*' for the last layer. May be repeated."
        ),
    ] = None,
    preconditioner: Annotated[
        str | None, typer.Option(help="'adam': scale gradients by Adam's step sizes, from saved optimizer states.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where gradients are made: cpu, cuda, cuda:1.")] = None,
    spec: Annotated[
        Path | None, typer.Option(help="A TOML file with any of these, and batch_size, threads, memory_format.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what a build that was stopped in OUT has, and begin anew.")
    ] = False,
) -> None:
    """Build an index: the projected gradients of every training example at every checkpoint.

    Example: proponent build digits.py:task --checkpoints runs/digits --out indexes/digits

    The model is probed first: Proponent refuses, naming the reason, what it could not answer rightly. What disk, memory
    and time the build will take is said before it starts.

    A build that was stopped, however it was, goes on from its last finished shard when the same command is given again.
    """
    with bars() as progress:
        chosen = _spec(checkpoints, projection, spec)
        chosen = replace(
            chosen,
            parameters=parameters or chosen.parameters,
            bytes_per_example=bytes_per_example or chosen.bytes_per_example,
            preconditioner=preconditioner or chosen.preconditioner,
            device=device or chosen.device,
            choose=chosen.choose if choose is None else choose,
            steps=parse_steps(steps) or chosen.steps,
            eta=eta or chosen.eta,
        )
        version = build_index(load_task(task), chosen, out, progress, restart=restart, announce=announce)
    manifest = version.manifest
    vectors = manifest.vectors
    size = 4 * vectors.width if vectors.code is None else vectors.code.row_bytes
    console.print(f"{out}: {vectors.rows:,} vectors of {size:,} bytes, version {version.version}")
    if manifest.card is not None:
        console.print(_recall(manifest.card))
    if manifest.choice is not None:
        at = ", ".join(str(entry.step) for entry in manifest.checkpoints)
        console.print(f"{len(manifest.checkpoints)} of {manifest.choice['of']} checkpoints, at steps {at}")
        for note in manifest.choice.get("notes", ()):
            console.print(note, style="yellow")
    if manifest.eta_convention != DEFAULT_ETA:
        console.print(f"eta by {manifest.eta_convention}")
    if manifest.left_out:
        console.print(f"left out, frozen or not chosen: {', '.join(manifest.left_out)}", style="yellow")
    for caveat in manifest.caveats:
        console.print(caveat, style="yellow")
    console.print(f"next: proponent serve {quote(str(out))} --task {quote(task)}", style="dim", soft_wrap=True)


def _recall(card: CardEntry) -> str:
    found = f"{card.proponents.recall_at_10:.0%} of proponents, {card.opponents.recall_at_10:.0%} of opponents"
    return f"recall@10 against exact scores, {card.queries} {card.source} queries: {found}"


def _spec(checkpoints: Path, projection: str | None, file: Path | None) -> BuildSpec:
    """Make one spec from the file or the option.

    Raises:
        BuildError: both say the projection.
    """
    if file is not None:
        if projection is not None:
            raise BuildError("--projection and --spec both say the projection; give one of them")
        return read_spec(file, checkpoints)
    return BuildSpec(checkpoints, projection=parse_projection(projection))


def parse_projection(option: str | None) -> dict[str, Any]:
    """Return the projection that an option such as ``rank1:1024`` names; None is the default.

    Raises:
        BuildError: the option is not of that form.
    """
    if option is None:
        return dict(DEFAULT_PROJECTION)
    name, colon, numbers = option.partition(":")
    if not colon:
        return {"name": name} if name == "identity" else {"name": name, "seed": 0}
    if not (numbers.isascii() and numbers.isdigit()):
        raise BuildError(f"--projection {option!r}: expected a name, or a name and a number as in 'rank1:1024'")
    if name == "pca":
        raise BuildError(f"--projection {option!r}: pca is told how many bytes: --bytes-per-example {numbers}")
    return {"name": name, "numbers": int(numbers), "seed": 0}
