"""The commands that make new versions: what they say of the index, and how to go back."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer import Task
from indexer.errors import BuildError, UnknownExampleError
from indexer.index.examples import Examples, open_examples
from indexer.index.versions import IndexVersion, open_version
from tests.indexer.cli.conftest import Command


@pytest.fixture
def folder(index_folder: Path, copy_of: Callable[[Path], Path]) -> Path:
    return copy_of(index_folder)


@pytest.fixture
def longer(tmp_path: Path) -> str:
    """The tiny task with three training examples more, by its file."""
    (tmp_path / "longer.py").write_text("from tests.tiny import tiny_task\ntask = tiny_task(303)\n")
    return f"{tmp_path / 'longer.py'}:task"


def said(folder: Path, before: IndexVersion, rows: tuple[int, int]) -> list[str]:
    """What a command prints of its new version."""
    after = open_version(folder)
    assert after.manifest.parent == before.version
    return [
        f"{folder}: {rows[0]} training examples before, {rows[1]} now; version {after.version}",
        f"go back: proponent versions activate {folder} {before.version}",
    ]


def examples(folder: Path) -> Examples:
    version = open_version(folder)
    return open_examples(version.objects, version.manifest)


def test_an_index_is_edited_from_the_command_line(command: Command, folder: Path, longer: str, tmp_path: Path) -> None:
    ranked = tmp_path / "ranked.csv"
    command("mislabeled", folder, "--out", ranked, "--limit", 4)
    steps: list[tuple[tuple[object, ...], tuple[int, int]]] = [
        (("delete", folder, "--file", ranked), (300, 296)),
        (("delete", folder, "--ids", "17,204"), (296, 294)),
        (("append", folder, "--task", longer), (294, 297)),
        (("append", folder, "--task", longer, "--rows", "17,204"), (297, 299)),
        (("compact", folder), (299, 299)),
    ]
    for words, rows in steps:
        before = open_version(folder)
        result = command(*words)
        assert result.stdout.splitlines() == said(folder, before, rows)
    assert len(examples(folder).listing("train", start=0, count=400)) == 299


def test_the_way_back_can_be_pasted_whatever_the_folder_is_called(command: Command, folder: Path) -> None:
    moved = folder.rename(folder.parent / "my index")
    before = open_version(moved)
    last = command("delete", moved, "--ids", "17").stdout.splitlines()[-1]
    assert last == f"go back: proponent versions activate '{moved}' {before.version}"
    command(*shlex.split(last.removeprefix("go back: proponent ")))
    assert open_version(moved) == before


def test_labels_come_from_options_and_from_a_file(
    command: Command, folder: Path, task: Task, task_file: str, tmp_path: Path
) -> None:
    labels = {id: examples(folder).find("train", id).label for id in ("17", "204")}
    new = {id: str((int(label) + 1) % 10) for id, label in labels.items()}
    (tmp_path / "labels.csv").write_text(f"id,label\n204,{new['204']}\n")
    before = open_version(folder)
    words = ("relabel", folder, "--task", task_file, "--label", f"17={new['17']}", "--file", tmp_path / "labels.csv")
    assert command(*words).stdout.splitlines() == said(folder, before, (300, 300))
    assert {id: examples(folder).find("train", id).label for id in new} == new


def test_refusals_leave_the_index_as_it_is(command: Command, folder: Path, task_file: str) -> None:
    before = open_version(folder)
    refused: list[tuple[tuple[object, ...], type[Exception], str]] = [
        (("delete", folder), BuildError, "name the training examples with --ids"),
        (("delete", folder, "--ids", "300"), UnknownExampleError, "1 of 1 ids are of no training example"),
        (("append", folder, "--task", task_file), BuildError, "task.train has 300 rows, and index 'tiny' has taken in"),
        (
            ("append", folder, "--task", task_file, "--rows", "0-9999999999"),
            BuildError,
            "expected rows from 0 to 299 of task.train, found 9999999999",
        ),
        (("relabel", folder, "--task", task_file), BuildError, "name new labels with --label 17=5"),
        (("compact", folder), BuildError, "there is nothing to compact"),
        (("rebuild-search", folder), BuildError, "there is nothing to rebuild"),
    ]
    for words, error, message in refused:
        with pytest.raises(error, match=message):
            command(*words)
    assert open_version(folder) == before
