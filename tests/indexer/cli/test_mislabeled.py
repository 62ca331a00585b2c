"""``proponent mislabeled``: a ranked CSV that loses no digit, written whole or not at all, and never over another."""

import csv
import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer import Ask
from indexer.cli.mislabeled import _header, _write
from indexer.errors import BuildError, CorruptIndexError, QuestionError, UnknownIndexError, UnknownLabelError
from indexer.index.examples import Example, Examples
from indexer.index.versions import open_version
from tests.indexer.cli.conftest import Command

GOLDEN = Path(__file__).parents[2] / "golden" / "format-1"
COLUMNS = ["rank", "split", "id", "label", "self_influence"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "new" / "ranked.csv"


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def cells(rank: int, example: Example) -> list[str]:
    numbers = (example.total, *example.self_influence)
    return [str(rank), example.split, example.id, example.label, *map(repr, numbers)]


def by(examples: list[Example], checkpoint: int | None) -> list[Example]:
    """Sort by the total or by a checkpoint that is counted from 1, the slow and obvious way."""
    values = [e.total or 0 if checkpoint is None else e.self_influence[checkpoint - 1] for e in examples]
    order = sorted(range(len(examples)), key=lambda i: (-values[i], examples[i].position or 0))
    return [examples[i] for i in order]


@pytest.mark.parametrize(
    "asked", [{}, {"checkpoint": 2, "limit": 7}, {"label": "3"}, {"label": "3", "checkpoint": 3, "limit": 2}], ids=str
)
def test_the_file_is_the_ranking_in_full_precision(
    command: Command, index_folder: Path, ask: Ask, out: Path, asked: dict[str, Any]
) -> None:
    options = itertools.chain.from_iterable((f"--{name}", value) for name, value in asked.items())
    shown = command("mislabeled", index_folder, "--out", out, *options)
    checkpoint, label = asked.get("checkpoint"), asked.get("label")
    steps = [entry.step for entry in open_version(index_folder).manifest.checkpoints]
    train = [e for e in ask.index.examples.listing("train", start=0, count=300) if label in (None, e.label)]
    expected = by(train, checkpoint)[: asked.get("limit")]
    header, *rows = read(out)
    assert header == [*COLUMNS, *(f"checkpoint_{i}_step_{step}" for i, step in enumerate(steps, 1))]
    assert rows == [cells(rank, example) for rank, example in enumerate(expected, 1)]
    first, *top = shown.stdout.splitlines()
    order = "the sum over all checkpoints" if checkpoint is None else f"checkpoint {checkpoint}"
    assert first == f"{out}: {len(expected)} training examples, highest self-influence first, by {order}"
    assert [line.split()[2:] for line in top] == [[f"train/{e.id}", "label", e.label] for e in expected[:5]]
    assert list(out.parent.iterdir()) == [out]


def test_a_file_is_replaced_only_when_told_to(command: Command, index_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "ranked.csv"
    out.write_text("mine")
    with pytest.raises(BuildError) as refused:
        command("mislabeled", index_folder, "--out", out)
    assert str(refused.value) == f"--out {str(out)!r} exists already; name another file, or replace it with --force"
    assert out.read_text() == "mine"
    command("mislabeled", index_folder, "--out", out, "--force", "--limit", 1)
    assert len(read(out)) == 2


def test_a_folder_is_never_replaced(command: Command, index_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"is a folder; expected a file, such as '.*ranked\.csv'"):
        command("mislabeled", index_folder, "--out", tmp_path, "--force")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("--label", "ten"), UnknownLabelError, "unknown label; expected one of '0', '1', '2'"),
        (("--checkpoint", 4), QuestionError, "checkpoint: expected a number from 1 to 3, or none for the sum over all"),
    ],
)
def test_what_the_index_does_not_have_is_refused_and_nothing_written(
    command: Command, index_folder: Path, out: Path, options: tuple[object, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        command("mislabeled", index_folder, "--out", out, *options)
    assert not out.exists()


@pytest.mark.parametrize("option", ["--limit", "--checkpoint"])
def test_numbers_begin_at_one(command: Command, index_folder: Path, out: Path, option: str) -> None:
    assert command("mislabeled", index_folder, "--out", out, option, 0).exit_code == 2
    assert not out.exists()


def test_an_index_that_is_not_there_is_refused(command: Command, tmp_path: Path, out: Path) -> None:
    with pytest.raises(UnknownIndexError, match="holds no finished index"):
        command("mislabeled", tmp_path, "--out", out)


def test_an_interrupted_ranking_leaves_the_old_file(
    command: Command, index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "ranked.csv"
    out.write_text("old")

    def breaks(self: Examples, positions: object) -> list[Example]:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Examples, "at", breaks)
    with pytest.raises(OSError, match="the disk is gone"):
        command("mislabeled", index_folder, "--out", out, "--force")
    assert (out.read_text(), list(tmp_path.iterdir())) == ("old", [out])


def test_labels_of_any_kind_come_back(out: Path) -> None:
    """A label is what a task says: with commas, quotes, ends of lines, of any script, or empty."""
    labels = ["a,b", 'say "cat"', "two\nlines", "猫", "", "carriage\r", "=1+1"]
    assert (
        _write(out, COLUMNS, (Example("train", str(i), i, i, label, "", (0.5,)) for i, label in enumerate(labels))) == 7
    )
    assert [row[3] for row in read(out)[1:]] == labels


def test_floats_keep_their_last_bit(out: Path) -> None:
    values = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, float("inf"), -1e-7]
    _write(out, COLUMNS, (Example("train", str(i), i, i, "", "", (value,)) for i, value in enumerate(values)))
    assert [[float(cell).hex() for cell in row[4:]] for row in read(out)[1:]] == [[value.hex()] * 2 for value in values]


def test_a_checkpoint_without_a_step_is_named_by_its_number() -> None:
    entries = open_version(GOLDEN).manifest.checkpoints
    assert _header([entries[0].model_copy(update={"step": None}), entries[1]])[5:] == [
        "checkpoint_1",
        "checkpoint_2_step_20",
    ]


def test_an_index_of_the_first_tables_is_ranked(command: Command, out: Path) -> None:
    command("mislabeled", GOLDEN, "--out", out)
    header, *rows = read(out)
    assert header == [*COLUMNS, "checkpoint_1_step_10", "checkpoint_2_step_20"]
    totals = [float(row[4]) for row in rows]
    assert len(rows) == 6 and totals == sorted(totals, reverse=True)
    assert all(float(row[4]) == float(row[5]) + float(row[6]) for row in rows)
    command("mislabeled", GOLDEN, "--out", out, "--label", "lying", "--force")
    assert [row[1:] for row in read(out)[1:]] == [row[1:] for row in rows if row[3] == "lying"]


def test_a_table_that_has_changed_is_not_ranked(
    command: Command, index_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(index_folder)
    version = open_version(folder)
    path = version.objects.path(version.manifest.examples[0].object)
    path.chmod(0o644)
    with sqlite3.connect(path) as table:
        table.execute("UPDATE self_influence_total SET value = 99 WHERE position = 3")
    with pytest.raises(CorruptIndexError, match="have changed since it was built"):
        command("mislabeled", folder, "--out", tmp_path / "ranked.csv")
    assert not (tmp_path / "ranked.csv").exists()
