"""The curve of wrong labels: hand-made orders, the order of an index, counts by class, and the demo it is shown on."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import BuildSpec, Preview, build
from indexer.errors import TaskError
from indexer.evaluate.label_noise import (
    ClassFound,
    LabelledExamples,
    by_numbers,
    by_self_influence,
    early_middle_last,
    found_by_class,
    labelled_examples,
    noise_curve,
)
from indexer.index.examples import Example, ExampleRow, Examples, write_examples
from indexer.recipes import mnist
from indexer.recipes.train import train

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ([1], [1.0]),
        ([1, 1, 0, 0], [0.5, 1.0, 1.0, 1.0]),
        ([0, 0, 1, 1], [0.0, 0.0, 0.5, 1.0]),
        ([0, 1, 0, 0, 1], [0.0, 0.5, 0.5, 0.5, 1.0]),
    ],
)
def test_the_curve_of_a_given_order(order: list[int], found: list[float]) -> None:
    curve = noise_curve(np.array(order, dtype=bool))
    assert curve.found.tolist() == found
    assert curve.wrong == sum(order)


@pytest.mark.parametrize(("share", "found"), [(0.0, 0.0), (0.1, 0.0), (0.2, 0.5), (0.5, 0.5), (0.9, 1.0), (1.0, 1.0)])
def test_the_share_found_when_a_share_was_inspected(share: float, found: float) -> None:
    """Of ten examples the second and the ninth are wrong."""
    order = np.zeros(10, dtype=bool)
    order[[1, 8]] = True
    assert noise_curve(order).at(share) == found


def test_nothing_is_found_before_anything_is_inspected() -> None:
    assert noise_curve(np.array([True, False])).at(0.0) == 0.0


@PROPERTY
@given(st.lists(st.booleans(), min_size=1, max_size=50).filter(any))
def test_a_curve_rises_to_one_and_lies_below_the_best_possible(order: list[bool]) -> None:
    curve = noise_curve(np.array(order))
    assert (np.diff(curve.found) >= 0).all()
    assert curve.at(1.0) == curve.found[-1] == 1.0
    assert (curve.found <= noise_curve(np.array(sorted(order, reverse=True))).found).all()


def test_without_a_wrong_label_there_is_nothing_to_find() -> None:
    with pytest.raises(TaskError, match="no given label differs from its true label: there is nothing to find"):
        noise_curve(np.zeros(3, dtype=bool))


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    """Four training examples; by self-influence, summed over checkpoints: 2, 0, 3, 1. A test example has none."""
    parts = [(2.0, 1.0), (0.0, 0.5), (1.5, 2.0), (1.0, 0.5)]
    rows = [Example("train", str(i), i, i, "cat", "", part) for i, part in enumerate(parts)]
    rows.append(Example("test", "0", 0, None, "cat", ""))
    write_examples(tmp_path / "table", [ExampleRow(row, Preview("text/plain", b"")) for row in rows])
    return Examples([tmp_path / "table"])


def test_examples_are_inspected_by_self_influence(examples: Examples) -> None:
    curve = by_self_influence(examples, ["dog", "dog", "cat", "cat"])
    assert curve.found.tolist() == [0.0, 0.5, 0.5, 1.0]
    assert by_self_influence(examples, ["cat", "cat", "dog", "cat"]).found[0] == 1.0


def test_true_labels_of_another_number_are_refused(examples: Examples) -> None:
    text = "expected the true label of each of the 4 training examples that have a self-influence, found 3"
    with pytest.raises(TaskError, match=text):
        by_self_influence(examples, ["cat"] * 3)


def test_true_labels_that_are_no_names_are_refused(examples: Examples) -> None:
    with pytest.raises(TaskError, match="expected true labels as strings, like the task's labels; found int 3"):
        labelled_examples(examples, ["cat", 3, "cat", "cat"])


def test_examples_of_an_index_stand_in_the_order_of_the_training_set(examples: Examples) -> None:
    labelled = labelled_examples(examples, ["dog", "cat", "cat", "bird"])
    assert labelled.true_labels == ("dog", "cat", "cat", "bird")
    assert labelled.wrong.tolist() == [True, False, False, True]
    assert labelled.self_influence.tolist() == [[2.0, 1.0], [0.0, 0.5], [1.5, 2.0], [1.0, 0.5]]


def test_the_curve_of_an_index_is_that_of_the_sum_over_checkpoints(examples: Examples) -> None:
    true = ["dog", "cat", "cat", "bird"]
    labelled = labelled_examples(examples, true)
    total = by_numbers(labelled.self_influence.sum(axis=1), labelled.wrong)
    assert by_self_influence(examples, true).found.tolist() == total.found.tolist() == [0.0, 0.5, 1.0, 1.0]


@PROPERTY
@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30).filter(
        lambda r: any(w for _, w in r)
    )
)
def test_numbers_are_inspected_from_the_highest_equal_ones_by_row(rows: list[tuple[int, bool]]) -> None:
    slow = sorted(range(len(rows)), key=lambda row: (-rows[row][0], row))
    expected = noise_curve(np.array([rows[row][1] for row in slow]))
    found = by_numbers(np.array([float(n) for n, _ in rows]), np.array([wrong for _, wrong in rows]))
    assert found.found.tolist() == expected.found.tolist()


def test_a_number_that_is_none_has_no_place_in_an_order() -> None:
    with pytest.raises(TaskError, match="row 1: expected a number to sort by, found NaN"):
        by_numbers(np.array([1.0, np.nan, 2.0]), np.array([True, False, False]))


def test_every_checkpoint_finds_its_own_of_each_class() -> None:
    """Of ten examples three are inspected: rows 0, 1 and 4 by the first checkpoint, rows 9, 8 and 7 by the second."""
    labelled = LabelledExamples(
        true_labels=("dog",) * 4 + ("cat",) * 4 + ("bird",) * 2,
        wrong=np.array([1, 1, 1, 0, 1, 0, 0, 1, 0, 0], dtype=bool),
        self_influence=np.array([[9.0, 8.0, 1.0, 1.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0], np.arange(10.0)]).T,
    )
    assert found_by_class(labelled, 0, 0.3) == [ClassFound("cat", 1, 2), ClassFound("dog", 2, 3)]
    assert found_by_class(labelled, 1, 0.3) == [ClassFound("cat", 1, 2), ClassFound("dog", 0, 3)]
    assert found_by_class(labelled, 0, 0.0) == [ClassFound("cat", 0, 2), ClassFound("dog", 0, 3)]
    assert [of_class.share for of_class in found_by_class(labelled, 0, 0.3)] == [1 / 2, 2 / 3]


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.25, 0.5, 1.0]))
def test_classes_add_up_to_the_curve(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    wrong = rng.random(40) < 0.3
    wrong[0] = True
    labels = tuple(str(label) for label in rng.integers(0, 4, 40))
    labelled = LabelledExamples(labels, wrong, rng.random((40, 3)))
    classes = found_by_class(labelled, 1, share)
    curve = by_numbers(labelled.self_influence[:, 1], wrong)
    assert sum(of_class.wrong for of_class in classes) == curve.wrong
    assert sum(of_class.found for of_class in classes) == round(curve.at(share) * curve.wrong)


def test_checkpoints_are_shown_from_first_to_last() -> None:
    assert [early_middle_last(checkpoints) for checkpoints in (1, 2, 3, 5, 6)] == [
        [0], [0, 1], [0, 1, 2], [0, 2, 4], [0, 2, 5],
    ]  # fmt: skip


@pytest.mark.slow
def test_the_demo_finds_most_wrong_labels_first(tmp_path: Path) -> None:
    """Training and index as shipped: half of the wrong labels in the first tenth is five times chance."""
    train(mnist.task, mnist.SCHEDULE, tmp_path / "run", lambda stage, done, total: None)
    index = build(mnist.task, BuildSpec(tmp_path / "run"), tmp_path / "mnist")
    curve = by_self_influence(Examples([index.objects.path(index.manifest.examples[0].object)]), mnist.true_labels)
    assert (curve.wrong, len(curve.found)) == (225, 4500)
    assert curve.at(0.10) >= 0.50
