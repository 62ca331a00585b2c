"""``proponent checkpoints``: show, choose."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from indexer.checkpoints.choose import Choice
from indexer.checkpoints.choose import choose as choose_from
from indexer.checkpoints.eta import approximate, etas
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.run import Checkpoint, Run
from indexer.errors import LearningRateError
from indexer.evaluate.choice_plot import plot_choice
from indexer.evaluate.pictures import check_picture

app = typer.Typer(no_args_is_help=True, help="Show the checkpoints of a training run, and choose among them.")

RunFolder = Annotated[Path, typer.Argument(help="Folder of the training run.", metavar="RUN")]


@app.command()
def show(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What Proponent sees in the folder of a training run: its checkpoints, and how much each would weigh.

    Example: proponent checkpoints show runs/digits
    """
    found = open_run(run)
    try:
        weights, why_none = etas(found, "interval"), approximate(found, "interval")
    except LearningRateError as exc:
        weights, why_none = (), str(exc)
    console = Console(markup=False)
    if as_json:
        console.print_json(orjson.dumps(_seen(found, weights, why_none)).decode())
        return
    for table in (_facts(found), _table(found, weights)):
        console.print(table)
    for checkpoint in found.checkpoints:
        if checkpoint.rates_from is not None:
            console.print(f"learning rate of {checkpoint.name}: {checkpoint.rates_from}", highlight=False)
    if why_none is not None:
        console.print(why_none if weights else f"no eta by interval: {why_none}", highlight=False)


@app.command()
def choose(
    run: RunFolder,
    k: Annotated[int, typer.Option("--k", min=1, help="At most so many.")] = 5,
    plot: Annotated[
        Path | None, typer.Option(help=r"Draw loss and choice to this file (needs proponent\[plot]).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Choose checkpoints where the loss falls steadily, more where it falls faster (TracIn, appendix D).

    Example: proponent checkpoints choose runs/digits --k 5 --plot choice.png
    """
    if plot is not None:
        check_picture(plot)
    found = open_run(run)
    choice = choose_from(found, k)
    console = Console(markup=False)
    if as_json:
        console.print_json(orjson.dumps(_chosen(choice), default=str).decode())
    else:
        _print_choice(console, choice)
    if plot is not None:
        plot_choice(choice, found, plot)
    if as_json:
        return
    if plot is not None:
        console.print(f"drawn to {plot}", highlight=False, soft_wrap=True)
    build = f"proponent build TASK --checkpoints {run} --choose {k} --out INDEX"
    console.print(f"to build with this choice: {build}", highlight=False, soft_wrap=True)


def _print_choice(console: Console, choice: Choice) -> None:
    table = Table(title_justify="left")
    table.add_column("checkpoint", overflow="fold")
    for name in ("step", "epoch", "loss near it", "level"):
        table.add_column(name, justify="right")
    table.add_column("chosen, or why not", overflow="fold")
    for verdict in choice.verdicts:
        told = Text("chosen", style="bold") if verdict.why_not is None else verdict.why_not
        checkpoint = verdict.checkpoint
        table.add_row(checkpoint.name, *_when(checkpoint), _number(verdict.loss), _number(verdict.level), told)
    console.print(table)
    for note in choice.notes:
        console.print(note, highlight=False)


def _facts(run: Run) -> Table:
    table = Table("run", str(run.folder), title_justify="left")
    table.add_row("kind", run.kind)
    if run.optimizer is None:
        table.add_row("optimizer", "not noted")
    else:
        table.add_row("optimizer", f"{run.optimizer.name} {dict(run.optimizer.parameters)}")
    if run.groups:
        table.add_row("parameter groups", ", ".join(f"{group.size} parameters" for group in run.groups))
    table.add_row("steps an epoch", "not noted" if run.steps_per_epoch is None else f"{run.steps_per_epoch:g}")
    table.add_row("history", _history(run))
    for caveat in run.caveats:
        table.add_row("caveat", caveat)
    return table


def _history(run: Run) -> str:
    noted = run.history
    counts = {
        "losses": np.isfinite(noted.losses).sum(),
        "gradient norms": np.isfinite(noted.gradient_norms).sum(),
        "learning rates": run.history.noted(noted.steps).sum(),
    }
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _table(run: Run, weights: tuple[tuple[float, ...], ...]) -> Table:
    table = Table(title_justify="left")
    table.add_column("checkpoint", overflow="fold")
    for name in ("step", "epoch", "loss", "learning rate", "eta by interval"):
        table.add_column(name, justify="right")
    for number, checkpoint in enumerate(run.checkpoints):
        cells = (_number(checkpoint.train_loss), _several(checkpoint.learning_rates))
        weight = _several(weights[number]) if weights else "-"
        table.add_row(checkpoint.name, *_when(checkpoint), *cells, weight)
    return table


def _when(checkpoint: Checkpoint) -> tuple[str, str]:
    step = "-" if checkpoint.step is None else f"{checkpoint.step:,}"
    return step, "-" if checkpoint.epoch is None else f"{checkpoint.epoch:.4g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _several(values: tuple[float, ...]) -> str:
    return ", ".join(dict.fromkeys(f"{value:.4g}" for value in values)) or "-"


def _entry(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"name": checkpoint.name, "step": checkpoint.step, "epoch": checkpoint.epoch}


def _seen(run: Run, weights: tuple[tuple[float, ...], ...], note: str | None) -> dict[str, Any]:
    """Return what `show` prints, for programs; eta_note says what is wrong with the etas, or why there are none."""
    checkpoints = [
        {
            **_entry(checkpoint),
            "train_loss": checkpoint.train_loss,
            "learning_rates": checkpoint.learning_rates,
            "rates_from": checkpoint.rates_from,
            "eta_by_interval": weights[number] if weights else None,
        }
        for number, checkpoint in enumerate(run.checkpoints)
    ]
    optimizer = None if run.optimizer is None else {"name": run.optimizer.name, **run.optimizer.parameters}
    about = {
        "folder": str(run.folder),
        "kind": run.kind,
        "optimizer": optimizer,
        "steps_per_epoch": run.steps_per_epoch,
    }
    return {**about, "caveats": run.caveats, "checkpoints": checkpoints, "eta_note": note}


def _chosen(choice: Choice) -> dict[str, Any]:
    """Return what `choose` prints, for programs."""
    verdicts = [
        {
            **_entry(verdict.checkpoint),
            "loss": verdict.loss,
            "level": verdict.level,
            "chosen": verdict.chosen,
            "why_not": verdict.why_not,
        }
        for verdict in choice.verdicts
    ]
    return {"k": choice.asked, "checkpoints": verdicts, "notes": choice.notes}
