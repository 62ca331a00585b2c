"""``proponent evaluate``: exact scores to files, and the curve of wrong labels."""

from pathlib import Path

import numpy as np
import pytest

from indexer import BuildSpec, Task
from indexer.errors import BuildError, TaskError
from indexer.evaluate.exact import exact_scores
from indexer.recipes.mnist import true_labels
from tests.indexer.cli.conftest import Command


@pytest.fixture
def labels_file(tmp_path: Path) -> str:
    """The right labels of the tiny task's training digits."""
    (tmp_path / "right.py").write_text("from indexer.recipes.mnist import true_labels\nlabels = true_labels[:300]\n")
    return f"{tmp_path / 'right.py'}:labels"


def test_exact_writes_scores_and_self_influence(
    command: Command, task_file: str, task: Task, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "exact"
    done = command("evaluate", "exact", task_file, "--checkpoints", run, "--out", out, "--queries", 3)
    expected = exact_scores(task, BuildSpec(run), queries=3)
    assert done.stdout == f"{out}: exact scores of 3 queries against 300 training examples\n"
    assert np.array_equal(np.load(out / "exact.npy"), expected.scores)
    assert np.array_equal(np.load(out / "self_exact.npy"), expected.self_influence.sum(axis=1))


def test_exact_refuses_more_queries_than_there_are(command: Command, task_file: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="expected at least 101 test examples to ask about, found 100"):
        command("evaluate", "exact", task_file, "--checkpoints", run, "--out", tmp_path, "--queries", 101)
    assert not (tmp_path / "exact.npy").exists()


def test_noise_prints_the_curve_and_draws_it(
    command: Command, index_folder: Path, labels_file: str, task: Task, tmp_path: Path
) -> None:
    wrong = sum(task.label_of(task.train[row][1]) != true_labels[row] for row in range(300))
    plot = tmp_path / "noise.png"
    lines = command("evaluate", "noise", index_folder, "--true-labels", labels_file, "--plot", plot).stdout.splitlines()
    assert lines[0] == f"{wrong} wrong labels among 300 training examples"
    assert [line.split(" by ")[0] for line in lines[1:5]] == [
        f"in the first {p:>4}" for p in ("5%", "10%", "20%", "30%")
    ]
    found = [float(line.split(": ")[1].split("%")[0]) for line in lines[1:5]]
    times = [float(line.split(", ")[1].split(" times")[0]) for line in lines[1:5]]
    assert found == sorted(found)
    assert found[-1] > 30
    assert times == pytest.approx([f / p for f, p in zip(found, (5, 10, 20, 30), strict=True)], abs=0.06)
    assert lines[5] == f"drawn to {plot}"
    assert plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_noise_counts_by_class_at_three_checkpoints(
    command: Command, index_folder: Path, labels_file: str, task: Task
) -> None:
    """The shares of a line are its counts over the wrong labels of its class, and the classes add up to all of them."""
    said = command("evaluate", "noise", index_folder, "--true-labels", labels_file, "--by-class").stdout
    head, names, *lines = said.split("\n\n")[1].splitlines()
    assert head == "in the first 10% by the self-influence of one checkpoint, by true class:"
    assert names.split() == ["class", "wrong", *(f"epoch-0{epoch}.safetensors" for epoch in (1, 3, 6))]
    wrong = {true_labels[row] for row in range(300) if task.label_of(task.train[row][1]) != true_labels[row]}
    assert [line.split()[0] for line in lines] == sorted(wrong)
    rows = [[float(cell.rstrip("%")) for cell in line.split()[1:]] for line in lines]
    assert sum(row[0] for row in rows) == int(said.split()[0])
    for of_class, *cells in rows:
        shares = [100 * found / of_class for found in cells[::2]]
        assert cells[1::2] == pytest.approx(shares, abs=0.051)  # rounded to a decimal of a percent


def test_without_by_class_nothing_is_counted_by_class(command: Command, index_folder: Path, labels_file: str) -> None:
    assert "by true class" not in command("evaluate", "noise", index_folder, "--true-labels", labels_file).stdout


def test_a_picture_of_no_kind_is_refused_before_anything(command: Command, tmp_path: Path) -> None:
    with pytest.raises(
        BuildError, match=r"expected a picture, a file that ends in \.png, \.svg or \.pdf; found 'noise'"
    ):
        command("evaluate", "noise", tmp_path / "absent", "--true-labels", "a:b", "--plot", "noise")


def test_the_help_names_the_extra(command: Command) -> None:
    assert "proponent[plot]" in command("evaluate", "noise", "--help").stdout


def test_noise_needs_the_label_of_every_example(command: Command, index_folder: Path) -> None:
    with pytest.raises(TaskError, match=r"expected the true label of each of the 300 training examples .*, found 4500"):
        command("evaluate", "noise", index_folder, "--true-labels", "indexer.recipes.mnist:true_labels")
