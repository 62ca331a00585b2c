"""Append: only rows that the index does not have, by their numbers, and under what it was built with."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from indexer import Ask, KnownExample, Question, Task, append, compact, delete
from indexer.errors import BuildError, TaskError, TaskMismatchError
from indexer.index.versions import open_version
from tests.indexer.editing.small import BUILT, INPUTS, ROWS, TARGETS, small_task


def ids(folder: Path) -> list[str]:
    """All training examples, in the data's order."""
    examples = Ask.open(folder, small_task()).index.examples
    return [example.id for example in examples.listing("train", start=0, count=99)]


def with_targets(targets: torch.Tensor) -> Task:
    return replace(small_task(), train=TensorDataset(INPUTS, targets))


def test_all_that_is_new_is_appended(folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    version = append(folder, small_task(), progress=lambda *stage: told.append(stage))
    assert ids(folder) == [str(row) for row in range(ROWS)]
    assert [entry.splits["train"] for entry in version.manifest.examples] == [BUILT, ROWS - BUILT]
    assert [shard.rows for shard in version.manifest.vectors.shards] == [BUILT, ROWS - BUILT]
    assert [stage for stage in told if stage[0] == "vectors"][-1] == ("vectors", 18, 18)
    assert [stage for stage in told if stage[0] == "examples"] == [("examples", row, 18) for row in range(1, 19)]


def test_nothing_to_append_makes_no_version(folder: Path) -> None:
    before = open_version(folder)
    with pytest.raises(BuildError) as exc:
        append(folder, small_task(BUILT))
    assert str(exc.value) == (
        "append: task.train has 12 rows, and index 'index' has taken in all of them; "
        "name rows to bring back deleted ones"
    )
    assert open_version(folder) == before


def test_what_was_deleted_comes_back_only_when_it_is_named(folder: Path) -> None:
    delete(folder, ["11", "10"])
    with pytest.raises(BuildError, match="has taken in all of them"):
        append(folder, small_task(BUILT))
    compact(folder)  # and then no table says that there ever was a row 11
    with pytest.raises(BuildError, match="has taken in all of them"):
        append(folder, small_task(BUILT))
    assert Ask.open(folder, small_task(BUILT)).index.newer_rows == 0
    append(folder, small_task(), [11])
    assert ids(folder)[-2:] == ["9", "11"]
    append(folder, small_task())
    assert ids(folder) == [str(row) for row in range(ROWS) if row != 10]


def test_rows_are_taken_once_and_in_order(folder: Path) -> None:
    version = append(folder, small_task(), [13, 12, 13])
    examples = Ask.open(folder, small_task()).index.examples
    assert [(e.id, e.position, e.row) for e in examples.at([12, 13])] == [("12", 12, 12), ("13", 13, 13)]
    assert version.manifest.rows == BUILT + 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([12, 3, 0], r"append: 2 of 3 rows are in index 'index' already: '0', '3'; nothing was changed"),
        ([12, 30], r"append: expected rows from 0 to 29 of task.train, found 30"),
        ([-1, 12], r"append: expected rows from 0 to 29 of task.train, found -1"),
        ([], r"append: expected numbers of rows, found none"),
        ([13], r"append: row 12 of task\.train were never in index 'index', and come before row 13; append those as w"),
        (
            [12, 13, 20],
            r"append: rows 14 to 19 of task\.train were never in index 'index', and come before row 20; app",
        ),
    ],
)
def test_rows_that_cannot_be_appended_are_refused(folder: Path, rows: list[int], message: str) -> None:
    before = open_version(folder)
    with pytest.raises(BuildError, match=message):
        append(folder, small_task(), rows)
    assert open_version(folder) == before


def test_another_task_is_refused(folder: Path) -> None:
    with pytest.raises(TaskMismatchError, match="was built with another task"):
        append(folder, with_targets((TARGETS + 1) % 3))


def test_a_corrected_example_may_be_deleted_and_appended_again(folder: Path) -> None:
    """Row 0 is one of those whose loss every opening compares: what it compares with is made again."""
    corrected = TARGETS.clone()
    corrected[0] = (TARGETS[0] + 1) % 3
    delete(folder, ["0"])
    append(folder, with_targets(corrected), [0])
    example = Ask.open(folder, with_targets(corrected)).index.examples.find("train", "0")
    assert (example.label, example.relabelled) == (small_task().label_of(corrected[0]), False)
    before = Ask.open(folder, small_task())
    with pytest.raises(TaskMismatchError, match="example '0' of split 'train' is not what it was"):
        before.query(Question(KnownExample("train", "0")))


def test_a_label_without_a_name_is_refused_with_its_row(folder: Path) -> None:
    wrong = TARGETS.clone()
    wrong[14] = 3
    with pytest.raises(TaskError, match=r"row 2 of split 'train': target 3 has no name.*counts as 0: row 12 of task\."):
        append(folder, with_targets(wrong))


def test_a_vector_that_is_not_finite_is_refused_with_its_row(folder: Path) -> None:
    inputs = INPUTS.clone()
    inputs[15, 0, 0, 0] = torch.inf
    with pytest.raises(BuildError, match=r"training row 3 holds NaN or infinity.*counts as 0: row 12 of task\.train\)"):
        append(folder, replace(small_task(), train=TensorDataset(inputs, TARGETS)))


def test_random_augmentation_is_refused(folder: Path) -> None:
    class Noisy:
        def __len__(self) -> int:
            return ROWS

        def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
            return INPUTS[row] + (torch.rand(1) if row >= BUILT else 0), TARGETS[row]

    with pytest.raises(TaskError, match="gives another example when row 12 is read again; leave random augmentation"):
        append(folder, replace(small_task(), train=Noisy()))
