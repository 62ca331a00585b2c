"""The curve of wrong labels: hand-made orders, the order of an index, its picture, and the demo that it is shown on."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import BuildSpec, Preview, build
from indexer.errors import MissingExtraError, TaskError
from indexer.evaluate.label_noise import by_self_influence, noise_curve, plot_noise
from indexer.index.examples import Example, ExampleRow, Examples, write_examples
from indexer.recipes import mnist
from indexer.recipes.train import train

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
PNG = b"\x89PNG\r\n\x1a\n"


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
    return Examples(tmp_path / "table")


def test_examples_are_inspected_by_self_influence(examples: Examples) -> None:
    curve = by_self_influence(examples, ["dog", "dog", "cat", "cat"])
    assert curve.found.tolist() == [0.0, 0.5, 0.5, 1.0]
    assert by_self_influence(examples, ["cat", "cat", "dog", "cat"]).found[0] == 1.0


def test_true_labels_of_another_number_are_refused(examples: Examples) -> None:
    text = "expected the true label of each of the 4 training examples that have a self-influence, found 3"
    with pytest.raises(TaskError, match=text):
        by_self_influence(examples, ["cat"] * 3)


def test_the_suffix_chooses_the_kind_of_picture(tmp_path: Path) -> None:
    curve = noise_curve(np.array([True, False, True, False]))
    for name, start in (("a.png", PNG), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        plot_noise(curve, "Wrong labels found", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    width, height = (int.from_bytes((tmp_path / "a.png").read_bytes()[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (825, 675)  # 5.5 x 4.5 inches of 150 dots


def test_the_picture_says_what_its_lines_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import rcParams

    monkeypatch.setitem(rcParams, "svg.fonttype", "none")  # text as text
    plot_noise(noise_curve(np.array([True, False])), "Wrong labels found, tiny", tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text()
    for text in ("Wrong labels found, tiny", "by self-influence", "best possible", "at random", "inspected (%)"):
        assert text in drawn


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"plots need matplotlib: pip install 'proponent\[plot\]'"):
        plot_noise(noise_curve(np.array([True])), "", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.slow
def test_the_demo_finds_most_wrong_labels_first(tmp_path: Path) -> None:
    """Training and index as shipped: half of the wrong labels in the first tenth is five times chance."""
    train(mnist.task, mnist.SCHEDULE, tmp_path / "run", lambda stage, done, total: None)
    index = build(mnist.task, BuildSpec(tmp_path / "run", projection=mnist.PROJECTION), tmp_path / "mnist")
    curve = by_self_influence(Examples(index.objects.path(index.manifest.examples[0].object)), mnist.true_labels)
    assert (curve.wrong, len(curve.found)) == (225, 4500)
    assert curve.at(0.10) >= 0.50
