"""``proponent query``: the answer of `Ask` as tables and as JSON."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from indexer import Ask, KnownExample, Question
from indexer.errors import QuestionError, UnknownExampleError, UnknownLabelError
from tests.indexer.cli.conftest import Command


def test_tables_show_both_directions(command: Command, index_folder: Path, task_file: str, ask: Ask) -> None:
    shown = command("query", index_folder, "--task", task_file, "--example", "test/17", "--label", "5", "-k", 3)
    ranking = ask.query(Question(KnownExample("test", "17"), label="5", k=3))
    lines = shown.stdout.splitlines()
    assert (
        lines[0]
        == f"predicted {ranking.query.predicted}; explaining the loss {ranking.query.loss:.4g} at label 5 (given)"
    )
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "train/" in line]
    assert rows == [
        [
            str(hit.rank),
            f"train/{hit.id}",
            hit.label,
            f"{hit.score:+.4g}",
            "  ".join(f"{part:+.3g}" for part in hit.per_checkpoint),
        ]
        for hit in (*ranking.proponents, *ranking.opponents)
    ]
    where = {
        word: number
        for number, line in enumerate(lines)
        for word in ("proponents", "opponents")
        if line.strip() == word
    }
    assert where["proponents"] < where["opponents"]
    assert f"version {ranking.version}, tracin; decode " in " ".join(shown.stdout.split())


def test_json_is_the_ranking(command: Command, index_folder: Path, task_file: str, ask: Ask) -> None:
    shown = command("query", index_folder, "--task", task_file, "--example", "train/3", "--json")
    found = json.loads(shown.stdout)
    expected = json.loads(json.dumps(asdict(ask.query(Question(KnownExample("train", "3"))))))
    assert set(found.pop("milliseconds")) == set(expected.pop("milliseconds"))
    assert found == expected
    assert shown.stderr == ""


def test_the_normalised_view_is_asked_for(command: Command, index_folder: Path, task_file: str, ask: Ask) -> None:
    shown = command("query", index_folder, "--task", task_file, "--example", "test/4", "--normalised", "--json")
    expected = ask.query(Question(KnownExample("test", "4"), view="normalised"))
    assert [hit["id"] for hit in json.loads(shown.stdout)["proponents"]] == [hit.id for hit in expected.proponents]


def test_an_image_file_is_asked_about(
    command: Command, index_folder: Path, task_file: str, ask: Ask, tmp_path: Path
) -> None:
    """The preview holds the digit's own bytes, so that the answer is that of the known example."""
    file = tmp_path / "digit.png"
    file.write_bytes(ask.index.examples.preview("test", "17").data)
    by_image = command("query", index_folder, "--task", task_file, "--image", file, "--json")
    by_name = command("query", index_folder, "--task", task_file, "--example", "test/17", "--json")
    assert json.loads(by_image.stdout)["opponents"] == json.loads(by_name.stdout)["opponents"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ((), QuestionError, "expected either --example SPLIT/ID or --image FILE"),
        (
            ("--example", "test/1", "--image", "x.png"),
            QuestionError,
            "expected either --example SPLIT/ID or --image FILE",
        ),
        (("--example", "17"), QuestionError, "--example '17': expected SPLIT/ID, as in 'test/17'"),
        (("--image", "nope.png"), QuestionError, "image file 'nope.png' does not exist"),
        (("--example", "test/100"), UnknownExampleError, "the index has no example of that split and id"),
        (("--example", "test/1", "--label", "cat"), UnknownLabelError, "unknown label; expected one of '0', '1'"),
        (("--example", "test/1", "-k", "0"), QuestionError, "k = 0: expected at least 1"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(
    command: Command, index_folder: Path, task_file: str, options: tuple[str, ...], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        command("query", index_folder, "--task", task_file, *options)
