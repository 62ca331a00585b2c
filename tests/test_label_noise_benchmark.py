"""The benchmark of label noise: which labels are made wrong, what is kept, tables, and a tiny run from end to end."""

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks import label_noise, noise_runs
from benchmarks.label_noise import class_table, main, table
from benchmarks.noise_runs import (
    SETTINGS,
    Images,
    NoisyRun,
    Setting,
    as_examples,
    flipped_rows,
    most_likely_wrong,
    noisy_run,
    read_cifar10,
    read_mnist,
)
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import load_into, read_weights
from indexer.evaluate.label_noise import ClassFound, by_self_influence, noise_curve
from indexer.recipes import cifar10, mnist
from indexer.recipes.train import Schedule

ROUNDED = 1e-5  # nats: float32 of an example alone and in a batch
ROWS, TESTS = 120, 30


def few_digits(folder: Path) -> Images:
    """The first right digits of the shipped sample, whatever the folder."""
    arrays = mnist.sample()
    names = [str(digit) for digit in range(10)]
    return Images(
        arrays["x_train"][:ROWS], arrays["true_train"][:ROWS], arrays["x_test"][:TESTS], arrays["y_test"][:TESTS], names
    )


@pytest.fixture(scope="module")
def small() -> Setting:
    """Few digits and a short schedule."""
    schedule = Schedule(epochs=4, keep=(1, 2, 3, 4), learning_rate=0.1, batch_size=10)
    return dataclasses.replace(SETTINGS["mnist"], read=few_digits, schedule=schedule)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where its runs are kept."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def made(small: Setting, work: Path) -> NoisyRun:
    """Return the run."""
    return noisy_run(small, work, work, lambda _: None)


def test_the_most_likely_wrong_class_is_that_of_a_slow_search(rng: np.random.Generator) -> None:
    outputs, right = rng.normal(size=(50, 6)).astype(np.float32), rng.integers(0, 6, 50).astype(np.uint8)
    slow = [
        max((v for v in range(6) if v != y), key=lambda v, row=row: row[v])  # type: ignore[misc]
        for row, y in zip(outputs, right, strict=True)
    ]
    assert most_likely_wrong(outputs, right).tolist() == slow


def test_which_rows_are_wrong_depends_on_nothing_but_their_number() -> None:
    rows = flipped_rows(5000)
    assert rows.tolist() == flipped_rows(5000).tolist()
    assert len(set(rows.tolist())) == 500 and 0 <= rows.min() and rows.max() < 5000


def test_pixels_keep_their_place_and_colour(rng: np.random.Generator) -> None:
    for shape in ((3, 5, 4), (3, 5, 4, 3)):
        images = rng.integers(0, 256, shape).astype(np.uint8)
        pixels, target = as_examples(images, np.array([4, 2, 9], dtype=np.uint8))[1]
        assert pixels.shape == ((3, 5, 4) if len(shape) == 4 else (1, 5, 4))
        for y, x in np.ndindex(5, 4):
            assert pixels[:, y, x].tolist() == (torch.from_numpy(images[1, y, x].reshape(-1)).float() / 255).tolist()
        assert (target.dtype, int(target)) == (torch.int64, 2)


def test_labels_are_wrong_where_chosen_and_as_the_clean_model_believes(
    small: Setting, made: NoisyRun, work: Path
) -> None:
    """Its probabilities one digit at a time."""
    images, folder = few_digits(work), small.folder(work)
    assert sorted(np.flatnonzero(made.wrong).tolist()) == sorted(flipped_rows(ROWS).tolist())
    given = np.load(folder / "given.npy")
    module = mnist.model().eval()
    path = open_run(folder / "clean").checkpoints[-1].path
    load_into(module, read_weights(path), path.name)
    for row in flipped_rows(ROWS):
        probabilities = F.softmax(module(torch.from_numpy(images.x_train[row]).float()[None, None] / 255)[0], dim=0)
        probabilities[int(images.y_train[row])] = -1
        assert given[row] == probabilities.argmax()


def test_losses_are_those_of_the_given_labels_at_the_last_checkpoint(
    small: Setting, made: NoisyRun, work: Path
) -> None:
    folder = small.folder(work)
    task = small.task(few_digits(work), np.load(folder / "given.npy"))
    module = mnist.model().eval()
    path = open_run(folder / "noisy").checkpoints[-1].path
    load_into(module, read_weights(path), path.name)
    slow = [F.cross_entropy(module(x[None]), y[None]).item() for x, y in (task.train[row] for row in range(ROWS))]
    np.testing.assert_allclose(made.losses, slow, atol=ROUNDED)
    given = [module(x[None]).argmax() == y for x, y in (task.train[row] for row in np.flatnonzero(made.wrong).tolist())]
    assert made.learnt == pytest.approx(np.mean(given))
    assert made.epochs == (1, 2, 3, 4)
    assert (made.accuracy * TESTS) % 1 == pytest.approx(0, abs=1e-4)


def test_what_is_there_is_read(small: Setting, made: NoisyRun, work: Path) -> None:
    said: list[str] = []
    again = noisy_run(small, work, work, said.append)
    assert said == []
    np.testing.assert_array_equal(again.losses, made.losses)
    first, second = (by_self_influence(run.examples, run.true_labels).found for run in (made, again))
    np.testing.assert_array_equal(first, second)


def test_a_run_that_was_cut_off_is_made_again(small: Setting, tmp_path: Path) -> None:
    """Files without a listing are no run."""
    left = small.folder(tmp_path) / "clean"
    left.mkdir(parents=True)
    (left / "epoch-99.safetensors").write_bytes(b"half")
    noisy_run(small, tmp_path, tmp_path, lambda _: None)
    assert not (left / "epoch-99.safetensors").exists()
    assert len(open_run(left).checkpoints) == 4


def test_another_schedule_is_another_folder(small: Setting, tmp_path: Path) -> None:
    slower = dataclasses.replace(small, schedule=dataclasses.replace(small.schedule, learning_rate=0.01))
    assert small.folder(tmp_path) != slower.folder(tmp_path)


def test_another_clean_training_believes_other_labels_of_the_same_digits(
    small: Setting, made: NoisyRun, work: Path, tmp_path: Path
) -> None:
    other = small.with_clean_seed(1)
    assert small.with_clean_seed(0) is small
    assert other.folder(tmp_path).name == f"mnist_clean_seed_1{small.folder(tmp_path).name.removeprefix('mnist')}"
    run = noisy_run(other, work, tmp_path, lambda _: None)
    assert run.wrong.tolist() == made.wrong.tolist()
    given = [np.load(folder / "given.npy") for folder in (small.folder(work), other.folder(tmp_path))]
    assert (given[0] != given[1]).any()


def test_the_settings_are_the_recipes_own() -> None:
    assert (SETTINGS["mnist"].schedule, SETTINGS["cifar10"].schedule) == (mnist.SCHEDULE, cifar10.SCHEDULE)
    assert (SETTINGS["mnist"].model, SETTINGS["cifar10"].model) == (mnist.model, cifar10.model)


def test_digits_are_read_from_the_original_files(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(SystemExit, match=r"expected MNIST at '.*train-images-idx3-ubyte.gz', found no file"):
        read_mnist(tmp_path)
    arrays = {}
    for split, n in (("train", 3), ("t10k", 2)):
        for kind, shape in (("images-idx3", (n, 28, 28)), ("labels-idx1", (n,))):
            array = arrays[f"{split}-{kind}"] = rng.integers(0, 10, shape).astype(np.uint8)
            header = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">i4").tobytes()
            path = tmp_path / "mnist" / f"{split}-{kind}-ubyte.gz"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(gzip.compress(header + array.tobytes()))
    images = read_mnist(tmp_path)
    for found, name in ((images.x_train, "train-images-idx3"), (images.y_train, "train-labels-idx1")):
        np.testing.assert_array_equal(found, arrays[name])
    np.testing.assert_array_equal(images.y_test, arrays["t10k-labels-idx1"])
    pixels, targets = as_examples(images.x_test, images.y_test).tensors
    assert (pixels.shape, targets.tolist()) == ((2, 1, 28, 28), images.y_test.tolist())


def test_photographs_are_read_as_the_recipe_reads_them(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "cifar10").mkdir()
    x, y = rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8), np.arange(4, dtype=np.uint8)
    names = np.array(["a", "b", "c", "d"])
    np.savez(tmp_path / cifar10.FILE, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1], label_names=names)
    images = read_cifar10(tmp_path)
    np.testing.assert_array_equal(images.x_train, x)
    assert (images.names, images.y_test.tolist()) == (["a", "b", "c", "d"], [0])


def test_tables_have_a_row_an_order_and_a_row_a_class() -> None:
    order = np.zeros(20, dtype=bool)
    order[[0, 3, 8, 15]] = True
    assert table({"loss": noise_curve(order)}).splitlines()[2:] == [
        "| loss | 25.0% | 25.0% | 50.0% | 50.0% |",
        "| at random, expected | 5.0% | 10.0% | 20.0% | 30.0% |",
        "| best possible | 25.0% | 50.0% | 100.0% | 100.0% |",
    ]
    found = {
        "epoch 1": [ClassFound("cat", 1, 4), ClassFound("dog", 2, 2)],
        "epoch 2": [ClassFound("cat", 0, 4), ClassFound("dog", 1, 2)],
    }
    assert class_table(found).splitlines() == [
        "| true class | wrong labels | epoch 1 | epoch 2 |",
        "|---|---|---|---|",
        "| cat | 4 | 25.0% | 0.0% |",
        "| dog | 2 | 100.0% | 50.0% |",
        "| all | 6 | 50.0% | 16.7% |",
    ]


@pytest.mark.usefixtures("made")
def test_the_whole_benchmark_runs(
    small: Setting, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(label_noise, "FIGURE", tmp_path / "figures" / "noise.png")
    monkeypatch.setitem(noise_runs.SETTINGS, "mnist", small)
    assert main(["--work", str(work), "--only", "mnist"]) == 0
    said = capsys.readouterr().out
    assert f"{round(0.1 * ROWS)} labels wrong. Of the model trained on them, at its last checkpoint:" in said
    for row in (
        "| self-influence |",
        "| training loss |",
        "| true class | wrong labels | epoch 1 | epoch 2 | epoch 4 |",
    ):
        assert row in said
    drawn = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in drawn] == ["noise_mnist.png", "noise_mnist_by_class.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "at random        in expectation: what is inspected is found" in capsys.readouterr().out
