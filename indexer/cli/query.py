"""``proponent query``."""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from indexer.ask.ask import Ask
from indexer.ask.filters import Filter
from indexer.ask.ranking import GivenExample, Hit, KnownExample, Question, Ranking
from indexer.errors import QuestionError
from indexer.index.search.candidates import View
from indexer.task import load_task


def query(
    index: Annotated[Path, typer.Argument(help="Folder of the index.", metavar="INDEX")],
    task: Annotated[str, typer.Option(help="The task that it was built with.")],
    example: Annotated[str | None, typer.Option(help="An example of the task's data: 'test/17' or 'train/3'.")] = None,
    image: Annotated[Path | None, typer.Option(help="A PNG or JPEG file instead.")] = None,
    label: Annotated[str | None, typer.Option(help="Explain this label; else the predicted one.")] = None,
    target: Annotated[float | None, typer.Option(help="Explain the loss at this target: for regressions.")] = None,
    normalised: Annotated[
        bool, typer.Option("--normalised", help="Order by score over the norm of the training example's gradient.")
    ] = False,
    only_label: Annotated[
        list[str] | None, typer.Option(help="Name only training examples with this label; may be repeated.")
    ] = None,
    exclude_id: Annotated[
        list[str] | None, typer.Option(help="Do not name this training example; may be repeated.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Hits in each direction.")] = 10,
    version: Annotated[str | None, typer.Option(help="Ask this version, and not the active one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Ask which training examples made the model say that.

    Example: proponent query indexes/mnist --task indexer.recipes.mnist:task --example test/17

    A positive score: training on the example lowered the loss of what you ask about.
    """
    ask = Ask.open(index, load_task(task), version)
    wanted = Filter(only_label, exclude_ids=exclude_id or ()) if only_label or exclude_id else None
    view: View = "normalised" if normalised else "dot"
    question = Question(_example(example, image), label, target, k=k, view=view, filter=wanted)
    ranking = ask.query(question)
    if as_json:
        typer.echo(orjson.dumps(asdict(ranking), option=orjson.OPT_INDENT_2).decode())
        return
    console = Console(markup=False)
    facts = ranking.query
    predicted = "" if facts.predicted is None else f"predicted {facts.predicted}; "
    console.print(f"{predicted}explaining the loss {facts.loss:.4g} at label {facts.label} ({facts.label_source})")
    for warning in ranking.warnings:
        console.print(warning, style="yellow", soft_wrap=True)
    score = "score" if ranking.view == "dot" else "score / norm"
    console.print(_table("proponents", ranking.proponents, score))
    console.print(_table("opponents", ranking.opponents, score))
    console.print(_stages(ranking), style="dim")


def _example(known: str | None, image: Path | None) -> KnownExample | GivenExample:
    """Read the option that says what is asked about.

    Raises:
        QuestionError: none or both are given, or one cannot be read.
    """
    if (known is None) == (image is None):
        raise QuestionError("expected either --example SPLIT/ID or --image FILE")
    if image is not None:
        if not image.is_file():
            raise QuestionError(f"image file {str(image)!r} does not exist")
        return GivenExample({"data": base64.b64encode(image.read_bytes()).decode()})
    split, slash, id = (known or "").partition("/")
    if not slash:
        raise QuestionError(f"--example {known!r}: expected SPLIT/ID, as in 'test/17'")
    return KnownExample(split, id)


def _table(title: str, hits: Sequence[Hit], score: str) -> Table:
    table = Table("rank", "example", "label", score, "by checkpoint", title=title)
    for hit in hits:
        parts = "  ".join(f"{part:+.3g}" for part in hit.per_checkpoint)
        table.add_row(str(hit.rank), f"{hit.split}/{hit.id}", hit.label, f"{hit.score:+.4g}", parts)
    return table


def _stages(ranking: Ranking) -> str:
    times = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in ranking.milliseconds.items())
    return f"index {ranking.index}, version {ranking.version}, {ranking.method}; {times}"
