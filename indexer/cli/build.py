"""``proponent build``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer.building.build import build as build_index
from indexer.building.spec import DEFAULT_PROJECTION, BuildSpec, read_spec
from indexer.cli.options import DEFAULT_ETA, Checkpoints, Choose, Eta, Steps, parse_steps
from indexer.cli.progress import bars, console
from indexer.errors import BuildError
from indexer.task import load_task


def build(
    task: Annotated[str, typer.Argument(help="The task: 'path.py:name' or 'module:name'.", metavar="TASK")],
    checkpoints: Checkpoints,
    out: Annotated[Path, typer.Option(help="Folder to build the index in; it must not hold one yet.")],
    choose: Choose = None,
    steps: Steps = None,
    eta: Eta = None,
    projection: Annotated[
        str | None, typer.Option(help="identity, gaussian or rank1, and how many numbers a checkpoint: 'rank1:1024'.")
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
) -> None:
    """Build an index: the projected gradients of every training example at every checkpoint.

    Example: proponent build digits.py:task --checkpoints runs/digits --out indexes/digits

    The model is probed first: Proponent refuses, naming the reason, what it could not answer rightly.
    """
    with bars() as progress:
        chosen = _spec(checkpoints, projection, spec)
        chosen = replace(
            chosen,
            parameters=parameters or chosen.parameters,
            preconditioner=preconditioner or chosen.preconditioner,
            device=device or chosen.device,
            choose=chosen.choose if choose is None else choose,
            steps=parse_steps(steps) or chosen.steps,
            eta=eta or chosen.eta,
        )
        version = build_index(load_task(task), chosen, out, progress)
    manifest = version.manifest
    vectors = manifest.vectors
    console.print(f"{out}: {vectors.rows:,} vectors of {vectors.width:,} numbers, version {version.version}")
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
    console.print(f"next: proponent serve {out} --task {task}", style="dim", soft_wrap=True)


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
    if colon and not (numbers.isascii() and numbers.isdigit()):
        raise BuildError(f"--projection {option!r}: expected a name, or a name and a number as in 'rank1:1024'")
    if name == "identity" and not colon:
        return {"name": name}
    chosen = {"numbers": int(numbers)} if colon else {}
    return {**DEFAULT_PROJECTION, "name": name, **chosen}
