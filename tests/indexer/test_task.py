"""A task's names for targets, what it accepts as data, and how it is loaded from a file or a module."""

import hashlib
import struct
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import TensorDataset

from indexer.errors import TaskError, UnknownLabelError
from indexer.task import Examples, Task, content_hash, load_name, load_task, read_rows


class Listed:
    """Examples given one by one, of any kind."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Any:
        return self._rows[row]


@pytest.fixture(autouse=True)
def own_search_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loading appends to the search path: of this test only."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)


def test_splits_by_name(task: Task) -> None:
    assert task.split("train") is task.train
    assert task.split("test") is task.test
    assert task.split("validation") is None
    assert isinstance(task.train, Examples)


def test_a_label_names_one_class_only(task: Task) -> None:
    with pytest.raises(TaskError, match=r"Task\(labels=\.\.\.\): expected distinct names, found one twice"):
        replace(task, labels=["cat", "dog", "cat"])


@given(st.lists(st.text(), unique=True, min_size=1, max_size=10), st.data())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_labels_and_targets_are_one_to_one(task: Task, labels: list[str], data: st.DataObject) -> None:
    named = replace(task, labels=labels)
    position = data.draw(st.integers(0, len(labels) - 1))
    assert named.label_of(torch.tensor(position)) == labels[position]
    assert named.target_of(labels[position]).equal(torch.tensor(position))


def test_a_target_by_its_name_is_as_those_of_the_data(task: Task) -> None:
    like = torch.tensor([3], dtype=torch.uint8)
    assert task.target_named("7", like).equal(torch.tensor([7], dtype=torch.uint8))
    regression = replace(task, labels=None)
    assert regression.target_named("0.25", torch.tensor(1.0)).equal(torch.tensor(0.25))
    with pytest.raises(UnknownLabelError, match="unknown label; expected one of '0', '1'"):
        task.target_named("seven", like)
    with pytest.raises(UnknownLabelError, match="this is a regression: expected a number"):
        regression.target_named("seven", torch.tensor(1.0))
    with pytest.raises(UnknownLabelError, match="an example of several targets has no label"):
        regression.target_named("7", torch.zeros(4))


@pytest.mark.parametrize("position", [-1, 10])
def test_a_target_without_a_name_is_refused(task: Task, position: int) -> None:
    with pytest.raises(TaskError, match=f"target {position} has no name: the task has 10 labels, 0 to 9"):
        task.label_of(torch.tensor(position))


def test_an_unknown_label_names_the_known_ones(task: Task) -> None:
    with pytest.raises(UnknownLabelError, match="unknown label; expected one of '0', '1', '2'"):
        task.target_of("eleven")


def test_targets_of_a_regression_are_their_own_labels(task: Task) -> None:
    assert replace(task, labels=None).label_of(torch.tensor(2.5)) == "2.5"


def test_rows_are_read_in_the_order_asked_for() -> None:
    inputs, targets = torch.arange(12.0).reshape(4, 3), torch.tensor([3, 2, 1, 0])
    found = read_rows(TensorDataset(inputs, targets), [2, 0, 2])
    assert found[0].equal(inputs[[2, 0, 2]])
    assert found[1].equal(targets[[2, 0, 2]])


def test_plain_numbers_are_targets() -> None:
    assert read_rows(Listed([(torch.zeros(2), 7)]), [0])[1].equal(torch.tensor([7]))


@pytest.mark.parametrize(
    ("example", "found"),
    [
        ([torch.zeros(2), 1], "list"),
        ((torch.zeros(2),), r"\(Tensor\)"),
        (([0.0], 1), r"\(list, int\)"),
        ({"x": 0}, "dict"),
    ],
)
def test_what_is_not_a_pair_of_tensor_and_target_is_refused(example: object, found: str) -> None:
    with pytest.raises(TaskError, match=rf"row 1: expected \(input tensor, target\), found {found}; wrap the data set"):
        read_rows(Listed([(torch.zeros(2), 0), example]), [0, 1])


def test_inputs_of_other_shapes_are_refused() -> None:
    rows = Listed([(torch.zeros(2), 0), (torch.zeros(2), 0), (torch.zeros(3), 0)])
    with pytest.raises(TaskError, match=r"row 2: expected an input of shape \(2,\), as at row 1, found \(3,\)"):
        read_rows(rows, [1, 2])


def test_the_content_hash_is_of_the_bytes() -> None:
    value, target = torch.arange(6.0).reshape(2, 3), torch.tensor(1)
    written = b"<f4 (2, 3) " + struct.pack("<6f", 0, 1, 2, 3, 4, 5) + b"<i8 () " + struct.pack("<q", 1)
    assert content_hash(value, target) == hashlib.sha256(written).hexdigest()[:32]
    assert content_hash(value.T.contiguous().T, target) == content_hash(value, target)


OTHERS: list[tuple[Tensor, Tensor]] = [
    (torch.arange(6.0).reshape(3, 2), torch.tensor(1)),
    (torch.arange(6.0).reshape(2, 3).double(), torch.tensor(1)),
    (torch.arange(6.0).reshape(2, 3), torch.tensor(0)),
    (torch.arange(6.0).reshape(2, 3), torch.tensor(1.0)),
    (torch.arange(6.0).reshape(2, 3) + torch.tensor([0, 0, 1e-6]), torch.tensor(1)),
]


@pytest.mark.parametrize(("value", "target"), OTHERS, ids=["shape", "dtype", "target", "target dtype", "last bit"])
def test_another_example_has_another_content_hash(value: Tensor, target: Tensor) -> None:
    assert content_hash(value, target) != content_hash(torch.arange(6.0).reshape(2, 3), torch.tensor(1))


def test_a_module_is_loaded_by_name() -> None:
    assert load_task("indexer.recipes.mnist:task").labels == [str(digit) for digit in range(10)]


def test_a_file_imports_its_neighbours_from_a_folder_at_the_end_of_the_path(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "neighbour_of_digits.py").write_text("from indexer.recipes.mnist import task as found\n")
    (project / "json.py").write_text("raise RuntimeError('a neighbour hides the standard library')\n")
    (project / "digits.py").write_text(
        "import sys\nsys.modules.pop('json', None)\nimport json\nfrom neighbour_of_digits import found\n"
        "assert json.dumps(1) == '1'\ntask = found\n"
    )
    before = list(sys.path)
    assert load_task(str(project / "digits.py") + ":task").labels == [str(digit) for digit in range(10)]
    assert sys.path == [*before, str(project)]
    load_task("project/digits.py:task")
    assert sys.path == [*before, str(project)]


def test_a_task_file_may_hold_dataclasses_with_written_annotations(tmp_path: Path) -> None:
    (tmp_path / "with_settings.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Settings:\n    width: int = 3\n"
    )
    assert load_name("with_settings.py:Settings")().width == 3


def test_a_module_of_the_current_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "digits_of_this_folder.py").write_text("answer = 42\n")
    assert load_name("digits_of_this_folder:answer") == 42
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize("reference", ["digits.py", "", ":task", "digits.py:"])
def test_a_reference_needs_a_place_and_a_name(reference: str) -> None:
    with pytest.raises(TaskError, match=f"task '{reference}': expected 'path.py:name' or 'module:name'"):
        load_task(reference)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(TaskError, match=r"task file 'nowhere/digits\.py' does not exist; give a path"):
        load_task("nowhere/digits.py:task")


@pytest.mark.parametrize("module", ["no_such_module", "indexer.no_such_module", "no_such_module.below"])
def test_a_missing_module_is_named(module: str) -> None:
    with pytest.raises(TaskError, match=f"task module '{module}' cannot be found; give 'path.py:name' for a file"):
        load_task(f"{module}:task")


def test_a_missing_import_inside_the_module_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "imports_what_is_missing.py").write_text("import no_such_dependency\n")
    with pytest.raises(
        TaskError, match=r"fails: ModuleNotFoundError: No module named 'no_such_dep.*missing\.py, line 1\)"
    ):
        load_task("imports_what_is_missing:task")


def test_a_missing_name_is_named() -> None:
    with pytest.raises(TaskError, match=r"task 'indexer\.recipes\.mnist:tusk': .* has no name 'tusk'"):
        load_task("indexer.recipes.mnist:tusk")


def test_what_is_not_a_task_is_refused() -> None:
    with pytest.raises(TaskError, match=r"task 'indexer\.recipes\.mnist:model': expected an indexer\.Task, found func"):
        load_task("indexer.recipes.mnist:model")
