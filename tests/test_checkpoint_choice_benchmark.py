"""The benchmark of chosen checkpoints: measures against slow ones, weights, and a tiny run from end to end."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import checkpoint_choice, checkpoint_runs
from benchmarks.checkpoint_choice import (
    REFERENCE,
    STRATEGIES,
    Outcome,
    Strategy,
    differences,
    evenly_spaced,
    found_by,
    main,
    outcome,
    pearson,
    ranks,
    scored,
    table,
)
from benchmarks.checkpoint_runs import SETTINGS, Products, Setting, candidate_steps, run_and_products, train
from indexer.building.spec import BuildSpec
from indexer.checkpoints.run import Run
from indexer.evaluate.exact import exact_scores
from indexer.recipes import mnist
from indexer.task import read_rows

EXACT = 1e-9  # relative: float64 sums in another order
ROWS, TESTS, EPOCHS, BATCH = 96, 12, 6, 16


@pytest.fixture(scope="module")
def small() -> Setting:
    """The digits' setting with few of them."""
    inputs, targets = read_rows(mnist.task.train, range(ROWS))
    asked = read_rows(mnist.train_set, range(ROWS, ROWS + TESTS))
    few = torch.utils.data.TensorDataset
    task = dataclasses.replace(mnist.task, train=few(inputs, targets), test=few(*asked))
    wrong = [mnist.true_labels[row] for row in range(ROWS)]
    return dataclasses.replace(
        SETTINGS["mnist"], task=lambda: task, true_labels=lambda: wrong, epochs=EPOCHS, batch_size=BATCH
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where its runs are kept."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def made(small: Setting, work: Path) -> tuple[tuple[Run, Products], tuple[Run, Products]]:
    """Return two runs of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_runs, "QUERIES", TESTS)
        patch.setattr(checkpoint_runs, "BATCH", 40)
        a, b = (run_and_products(small, seed, work, lambda _: None) for seed in (0, 1))
        return a, b


def named(title: str) -> Strategy:
    return next(strategy for strategy in STRATEGIES if strategy.title == title)


def test_candidates_are_denser_at_first() -> None:
    assert candidate_steps(71, 3) == [18, 36, 53, 71, 89, 106, 124, 142, 213]
    assert candidate_steps(4, 1) == [1, 2, 3, 4]


def test_even_spacing_takes_the_nearest_candidates_and_the_last() -> None:
    assert evenly_spaced(candidate_steps(100, 25), 5) == [500, 1000, 1500, 2000, 2500]
    assert evenly_spaced([1, 2, 3, 4, 9, 10, 14, 20], 4) == [4, 10, 14, 20]
    assert evenly_spaced([3, 8], 1) == [8]
    with pytest.raises(ValueError, match=r"expected candidates for 4 evenly spaced checkpoints, found 3: \[1, 2, 40\]"):
        evenly_spaced([1, 2, 40], 4)


def test_correlations_are_those_of_numpy(rng: np.random.Generator) -> None:
    a = rng.normal(size=(4, 50))
    b = 0.3 * a + rng.normal(size=a.shape) + 100
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(pearson(a, b), expected, rtol=EXACT)
    np.testing.assert_allclose(pearson(a.astype(np.float32), (3 * a).astype(np.float32)), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="scores of test example 2 are all equal: no correlation"):
        pearson(a * np.array([[1], [1], [0], [1]]), b)


def test_ranks_are_those_of_a_slow_count(rng: np.random.Generator) -> None:
    rows = rng.integers(0, 12, size=(3, 40)).astype(np.float64)
    slow = [[sum(y < x for y in row) + (sum(y == x for y in row) + 1) / 2 for x in row] for row in rows]
    np.testing.assert_array_equal(ranks(rows), slow)


def test_a_monotone_change_leaves_spearman_alone(rng: np.random.Generator) -> None:
    a = rng.normal(size=(2, 30))
    np.testing.assert_allclose(pearson(ranks(a), ranks(np.exp(3 * a))), 1, rtol=EXACT)
    assert (pearson(a, np.exp(3 * a)) < 0.95).all()


def test_labels_found_are_among_the_first_tenth(rng: np.random.Generator) -> None:
    wrong = np.zeros(40, dtype=bool)
    wrong[[3, 5, 20, 30]] = True
    self_influence = rng.random(40)
    self_influence[[3, 5, 7]] = [9, 8, 7]
    self_influence[20] = 6
    self_influence[30] = -1
    assert found_by(self_influence, wrong) == 3 / 4


def test_weights_stand_before_their_checkpoints(rng: np.random.Generator) -> None:
    products = Products((2, 4, 9), rng.normal(size=(3, 2, 5)), rng.random((3, 5)))
    scores, self_influence = products.weighted({9: 2.0, 2: 0.5})
    np.testing.assert_allclose(scores, 0.5 * products.scores[0] + 2 * products.scores[2], rtol=EXACT)
    np.testing.assert_allclose(self_influence, 0.5 * products.self_influence[0] + 2 * products.self_influence[2])


def test_all_checkpoints_together_give_the_exact_scores(small: Setting, made: tuple[tuple[Run, Products], ...]) -> None:
    """The same numbers as `indexer.evaluate.exact` gives, which knows nothing of products and weights."""
    run, products = made[0]
    assert list(products.steps) == candidate_steps(small.steps_per_epoch, EPOCHS)
    expected = exact_scores(small.task(), BuildSpec(run.folder), queries=TESTS)
    scores, self_influence = scored(named("all"), run, products)
    np.testing.assert_allclose(scores, expected.scores, rtol=EXACT, atol=EXACT * np.abs(expected.scores).max())
    np.testing.assert_allclose(self_influence, expected.self_influence.sum(axis=1), rtol=EXACT)


def test_interval_weights_are_the_spacing_in_epochs(made: tuple[tuple[Run, Products], ...]) -> None:
    run, products = made[0]
    strategy = Strategy("two", "interval", lambda run: [12, 6])
    rate = SETTINGS["mnist"].learning_rate
    np.testing.assert_allclose(
        scored(strategy, run, products)[0], products.weighted({6: rate, 12: rate})[0], rtol=EXACT, atol=1e-12
    )


def test_seeds_differ_in_first_weights_and_batches_only(made: tuple[tuple[Run, Products], ...]) -> None:
    (_, a), (_, b) = made
    assert a.scores.shape == b.scores.shape
    assert (a.scores != b.scores).any()


def test_what_is_there_is_read_and_a_run_that_was_cut_off_is_made_again(
    small: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = dataclasses.replace(small, epochs=2)
    monkeypatch.setattr(checkpoint_runs, "QUERIES", 2)
    train(dataclasses.replace(small, epochs=1), 3, setting.folder(tmp_path, 3), lambda _: None)
    run, products = run_and_products(setting, 3, tmp_path, lambda _: None)
    assert list(products.steps) == candidate_steps(setting.steps_per_epoch, 2)
    said: list[str] = []
    again = run_and_products(setting, 3, tmp_path, said.append)
    assert said == []
    np.testing.assert_array_equal(again[1].scores, products.scores)
    assert again[0].folder == run.folder


def test_the_same_run_twice_agrees_with_itself(small: Setting, made: tuple[tuple[Run, Products], ...]) -> None:
    found = outcome(named("evenly spaced"), [(made[0], made[0])], small.wrong())
    np.testing.assert_allclose(found.pearson, 1, rtol=EXACT)
    np.testing.assert_allclose(found.spearman, 1, rtol=EXACT)
    assert found.found[0, 0] == found.found[0, 1]


def test_tables_have_means_errors_and_every_pair() -> None:
    def result(title: str, shift: float) -> Outcome:
        values = np.array([[0.1, 0.3], [0.3, 0.5]]) + shift
        return Outcome(title, values, values / 2, np.array([[0.5, 0.7], [0.6, 0.6]]) + shift)

    outcomes = [result("chosen", 0.1), result(REFERENCE, 0.0)]
    assert table(outcomes).splitlines()[2] == (
        "| chosen | 0.400 ± 0.100 (0.300, 0.500) | 0.200 ± 0.050 (0.150, 0.250) | 70.0% ± 4.1 (60.0 80.0, 70.0 70.0) |"
    )
    assert differences(outcomes).splitlines()[2:] == ["| chosen | +0.100 ± 0.000 | +0.050 ± 0.000 | +10.0 ± 0.0 |"]
    assert len(table(outcomes).splitlines()) == 4


@pytest.mark.usefixtures("made")
def test_the_whole_benchmark_runs(
    small: Setting, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint_choice, "FIGURE", tmp_path / "figures" / "choice.png")
    monkeypatch.setitem(SETTINGS, "mnist", small)
    arguments = ["--settings", "mnist", "--pairs", "1", "--work", str(work)]
    assert main([*arguments, "--prepare", "0"]) == 0
    assert capsys.readouterr().out == ""
    assert main([*arguments, "--plot"]) == 0
    said = capsys.readouterr().out
    for strategy in STRATEGIES:
        assert f"| {strategy.title} |" in said
    assert "evenly spaced: epochs" in said and "seed 1: chosen epochs" in said
    drawn = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in drawn] == ["choice.png", "choice_mnist.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert "evenly spaced    5 checkpoints: the candidates nearest to j / 5 of all steps" in said
    assert "--prepare SEEDS" in said


def test_a_setting_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--settings", "mnist,imagenet"])
    assert "--settings: expected some of mnist, cifar10, found imagenet" in capsys.readouterr().err
