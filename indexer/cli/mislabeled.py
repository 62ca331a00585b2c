"""``proponent mislabeled``: training examples whose labels a person should look at, worst first, as CSV.

A wrong label pulls hard on the weights and almost alone, so its example has a high self-influence (TracIn, section
4.1). Everything was computed when the index was built: no task, no model.
"""

import csv
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import typer

from indexer.atomic import writing
from indexer.errors import BuildError
from indexer.index.examples import Example, open_examples
from indexer.index.manifest import CheckpointEntry
from indexer.index.versions import open_version

_SHOWN = 5
_COLUMNS = ("rank", "split", "id", "label", "self_influence")


def mislabeled(
    index: Annotated[Path, typer.Argument(help="Folder of the index.", metavar="INDEX")],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    label: Annotated[str | None, typer.Option(help="Only examples with this label.")] = None,
    checkpoint: Annotated[
        int | None,
        typer.Option(min=1, help="Rank by the self-influence of this checkpoint, counted from 1; else by the sum."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file where it is there already.")] = False,
) -> None:
    """Rank training examples by self-influence, wrong labels first, and write them to a CSV file.

    Example: proponent mislabeled indexes/mnist --out ranked.csv --limit 100
    """
    _check_out(out, force)
    version = open_version(index)
    manifest = version.manifest
    for number, entry in enumerate(manifest.examples, 1):
        version.objects.check_hash(entry.object, f"examples, segment {number}")
    with closing(open_examples(version.objects, manifest)) as examples:
        if label is not None:
            examples.check_label(label, manifest.task.labels)
        part = examples.part_of(checkpoint)
        ranked = examples.self_influence(part=part, label=label, count=limit)
        first = list(islice(ranked, _SHOWN))
        rows = _write(out, _header(manifest.checkpoints), (example for example, _ in chain(first, ranked)))
    by = "the sum over all checkpoints" if part is None else f"checkpoint {checkpoint}"
    typer.echo(f"{out}: {rows:,} training examples, highest self-influence first, by {by}")
    for rank, (example, value) in enumerate(first, 1):
        typer.echo(f"{rank:>3}  {value:<10.4g}  {example.split}/{example.id}  label {example.label}")


def _check_out(out: Path, force: bool) -> None:
    """Refuse a place where the file cannot or should not be written, before anything is read for it.

    Raises:
        BuildError: a folder is there, or a file that was not to be replaced.
    """
    if out.is_dir():
        raise BuildError(f"--out {str(out)!r} is a folder; expected a file, such as {str(out / 'ranked.csv')!r}")
    if out.exists() and not force:
        raise BuildError(f"--out {str(out)!r} exists already; name another file, or replace it with --force")


def _write(out: Path, header: list[str], examples: Iterable[Example]) -> int:
    """Write the file, and return how many examples it holds; floats in the digits that give the same float."""
    rows = 0
    with writing(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)  # RFC 4180, whose line ends make it quote a label that holds one
        writer.writerow(header)
        for cells in _cells(examples):
            writer.writerow(cells)
            rows += 1
    return rows


def _cells(examples: Iterable[Example]) -> Iterator[tuple[object, ...]]:
    for rank, example in enumerate(examples, 1):
        yield rank, example.split, example.id, example.label, example.total, *example.self_influence


def _header(checkpoints: list[CheckpointEntry]) -> list[str]:
    """Return the columns: checkpoints by their number, and by their step where it is known."""
    steps = ["" if entry.step is None else f"_step_{entry.step}" for entry in checkpoints]
    return [*_COLUMNS, *(f"checkpoint_{number}{step}" for number, step in enumerate(steps, 1))]
