"""``proponent inspect``: an index that is there, or a task before its build."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from indexer.building.spec import BuildSpec
from indexer.building.survey import Survey, survey
from indexer.cli.build import parse_projection
from indexer.cli.options import parse_steps
from indexer.errors import BuildError
from indexer.index.card import CardEntry
from indexer.index.manifest import SearchEntry
from indexer.index.versions import IndexVersion, open_version
from indexer.projection.pca import SMALLEST_BYTES
from indexer.task import load_task

_CONVENTIONS = {
    "learning_rate": "learning_rate: of the last step before the checkpoint",
    "interval": "interval: the rates of the steps since the checkpoint before, over steps an epoch",
}


def inspect(
    what: Annotated[str, typer.Argument(help="Folder of an index, or a task: 'path.py:name'.", metavar="INDEX|TASK")],
    checkpoints: Annotated[Path | None, typer.Option(help="Of a task: measure at these, not at first weights.")] = None,
    choose: Annotated[
        int | None, typer.Option(help="Of a task: at so many of these, as build would take them.")
    ] = None,
    steps: Annotated[str | None, typer.Option(help="Of a task: at those of these steps, '71,142,355'.")] = None,
    projection: Annotated[str | None, typer.Option(help="Of a task: as for build, such as 'rank1:1024'.")] = None,
    bytes_per_example: Annotated[
        int | None, typer.Option(min=SMALLEST_BYTES, help="Of a task: as for build, so many of a vector at most.")
    ] = None,
    parameters: Annotated[list[str] | None, typer.Option(help="Of a task: only those that fit, 'encoder.*'.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the manifest, or the survey.")] = False,
) -> None:
    """Show what an index is, or what a build of a task would do with each parameter and what that would cost.

    Example: proponent inspect indexes/mnist

    Example: proponent inspect digits.py:task --checkpoints runs/digits

    Raises:
        BuildError: an option for tasks is given for an index, or checkpoints are to be taken of no run.
    """
    console = Console(markup=False)
    if ":" in what and not Path(what).is_dir():
        if checkpoints is None and (choose is not None or steps is not None):
            raise BuildError("--choose and --steps take checkpoints of a run; name it with --checkpoints")
        spec = BuildSpec(
            checkpoints or Path(),
            projection=parse_projection(projection),
            bytes_per_example=bytes_per_example,
            parameters=parameters or (),
            choose=choose,
            steps=parse_steps(steps),
        )
        found = survey(load_task(what), checkpoints, spec)
        if as_json:
            console.print_json(orjson.dumps(asdict(found), default=str).decode())
        else:
            _print_survey(console, what, found)
        return
    if parameters or any(option is not None for option in (checkpoints, choose, steps, projection, bytes_per_example)):
        raise BuildError(
            "--checkpoints, --choose, --steps, --projection, --bytes-per-example and --parameters are for a task; "
            f"{what!r} is the folder of an index"
        )
    version = open_version(Path(what))
    if as_json:
        console.print_json(version.manifest.model_dump_json())
        return
    for table in (_facts(version), _card(version), _checkpoints(version), _blocks(version)):
        console.print(table)


def _print_survey(console: Console, task: str, found: Survey) -> None:
    table = Table("parameters", "shape", "path", "rule, or why not", title_justify="left")
    for name in ("energy", "bytes a checkpoint", "µs an example"):
        table.add_column(name, justify="right")
    for entry in found.blocks:
        block = entry.block
        stored = "shared" if entry.numbers is None else f"{4 * entry.numbers:,}"
        shape = f"{block.shape[0]} x {block.shape[1]}"
        cells = (f"{entry.energy:.1%}", stored, f"{1e6 * entry.seconds:,.1f}")
        table.add_row(" + ".join(block.parameters), shape, block.path, block.note, *cells)
    console.print(table)
    facts = Table("task", task, title_justify="left")
    facts.add_row("probe", "passed: every path agrees with a plain float64 backward(), example by example")
    facts.add_row("left out", ", ".join(found.left_out) or "nothing: all parameters are trainable and chosen")
    facts.add_row(
        "weights", f"of {found.checkpoints} checkpoints" if found.trained else "the model's first ones, untrained"
    )
    facts.add_row("a query", found.sequential or "all checkpoints in one vectorised pass")
    kind = f"{found.width:,} numbers a checkpoint," if found.coded_bytes is None else "coded, at most"
    facts.add_row("vectors", f"{kind} {found.vector_bytes:,} bytes an example")
    facts.add_row("batches", f"of {found.batch_size}, {found.memory_format}")
    ratio = found.seconds / found.step_seconds
    facts.add_row("a pass", f"{1e6 * found.seconds:,.0f} µs an example and checkpoint: {ratio:.2f} training steps")
    told = f"about {_duration(found.build_seconds)} for {found.rows:,} examples at {found.checkpoints} checkpoint"
    told += "" if found.checkpoints == 1 else "s"
    facts.add_row("a build", told + ("" if found.coded_bytes is None else ", once a sample is fitted"))
    console.print(facts)


def _duration(seconds: float) -> str:
    """Return seconds as people say them.

    >>> _duration(0.4), _duration(90.0), _duration(7200.0)
    ('0.4 s', '1.5 min', '2.0 h')
    """
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _facts(version: IndexVersion) -> Table:
    manifest = version.manifest
    vectors, plan = manifest.vectors, manifest.plan
    table = Table("index", version.name, title_justify="left")
    made = "built" if manifest.parent is None else f"{manifest.edit} of {manifest.parent}"
    table.add_row("version", f"{version.version}, {made}")
    table.add_row("method", f"{manifest.method.name} {manifest.method.parameters}")
    kind, size = ("float32", 4 * vectors.width) if vectors.code is None else ("coded", vectors.code.row_bytes)
    deleted = "" if vectors.deleted is None else f", {vectors.deleted.rows:,} of them deleted"
    table.add_row("vectors", f"{vectors.rows:,} of {vectors.width:,} {kind} numbers, {size:,} bytes each{deleted}")
    table.add_row("search", _search(manifest.search))
    table.add_row("examples", ", ".join(f"{count:,} {split}" for split, count in manifest.splits.items()))
    table.add_row("input", str(manifest.task.input))
    table.add_row("labels", "none: a regression" if manifest.task.labels is None else ", ".join(manifest.task.labels))
    if manifest.optimizer is not None:
        told = {name: value for name, value in manifest.optimizer.items() if name != "name"}
        table.add_row("optimizer", f"{manifest.optimizer['name']} {told}")
    table.add_row("eta", _CONVENTIONS[manifest.eta_convention])
    if manifest.choice is not None:
        table.add_row("choice", f"{len(manifest.checkpoints)} of {manifest.choice['of']}: {manifest.choice['rule']}")
    for caveat in manifest.caveats:
        table.add_row("caveat", caveat)
    if manifest.left_out:
        table.add_row("left out", ", ".join(manifest.left_out))
    table.add_row("a query", manifest.sequential or "all checkpoints in one vectorised pass")
    table.add_row("plan", f"batches of {plan.batch_size}, {plan.threads} threads, {plan.memory_format}, {plan.device}")
    return table


def _search(entry: SearchEntry) -> str:
    """Say how rows are found, and how surely.

    >>> _search(SearchEntry(kind="flat"))
    'flat: every row is compared'
    """
    if entry.prefix is None:
        return "flat: every row is compared"
    told = f"prefix: {entry.prefix.vectors.width} directions of {entry.prefix.vectors.rows:,} rows, longest first"
    found = entry.recall
    if found is None:
        return told
    asked = "queries that it was not tuned on" if found.source == "held-out" else "of its own rows"
    return (
        f"{told}; recall@{found.k} {found.proponents:.3f} proponents, {found.opponents:.3f} opponents, "
        f"{found.exhaustive:.0%} proved exact, over {found.queries:,} {asked}"
    )


def _card(version: IndexVersion) -> Table:
    card = version.manifest.card
    if card is None:
        return Table("card", "none: how well its scores agree with exact ones was not measured", title_justify="left")
    told = f"{card.queries:,} {card.source} examples against {card.rows:,} rows"
    if version.manifest.card_version is not None:
        told += f", measured on version {version.manifest.card_version}, before it was edited"
    if card.source == "train":
        told += ", without themselves"
    table = Table("card", told, title_justify="left")
    for direction, entry in (("proponents", card.proponents), ("opponents", card.opponents)):
        at_10 = _figure(entry.recall_at_10, entry.recall_at_10_interval)
        at_100 = _figure(entry.recall_at_100, entry.recall_at_100_interval)
        table.add_row(direction, f"recall@10 {at_10}, recall@100 {at_100}")
    table.add_row("Pearson", _figure(card.pearson, card.pearson_interval, 4))
    table.add_row("Spearman", _figure(card.spearman, card.spearman_interval, 4))
    table.add_row("score error", _errors(card))
    table.add_row("in brackets", f"{card.confidence:.0%} intervals, over queries")
    bases = f", and {card.basis_bytes:,} of bases" if card.basis_bytes else ""
    table.add_row("a query reads", f"{card.bytes_per_example:,.10g} bytes an example{bases}")
    return table


def _figure(value: float | None, interval: tuple[float, float] | None, digits: int = 3) -> str:
    """Return a figure and its interval as a person reads them.

    >>> _figure(0.9124, (0.8812, 0.94)), _figure(None, None)
    ('0.912 [0.881, 0.940]', 'none: all scores are equal')
    """
    if value is None:
        return "none: all scores are equal"
    bounds = "" if interval is None else f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
    return f"{value:.{digits}f}{bounds}"


def _errors(card: CardEntry) -> str:
    if not card.error:
        return "none: all exact scores are zero"
    told = ", ".join(f"{entry.share:.0%} within {entry.of_rms:.3g}" for entry in card.error)
    return f"{told} of the RMS of a query's scores"


def _checkpoints(version: IndexVersion) -> Table:
    table = Table("checkpoint", "eta", "step", "epoch", "train loss")
    for entry in version.manifest.checkpoints:
        loss = "" if entry.train_loss is None else f"{entry.train_loss:.4f}"
        epoch = "" if entry.epoch is None else f"{entry.epoch:g}"
        etas = ", ".join(f"{eta:.4g}" for eta in dict.fromkeys([entry.eta, *(rate.eta for rate in entry.rates)]))
        table.add_row(entry.file, etas, "" if entry.step is None else str(entry.step), epoch, loss)
    return table


def _blocks(version: IndexVersion) -> Table:
    table = Table("parameters", "shape", "path", "rule, or why not")
    for block in version.manifest.blocks:
        table.add_row(" + ".join(block.parameters), f"{block.shape[0]} x {block.shape[1]}", block.path, block.note)
    return table
