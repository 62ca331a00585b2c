"""The recipe on photographs: what needs no data is always tested, on made-up images too; the real ones where they are.

PROPONENT_DATA names the folder that has cifar10/cifar10_subset.npz; without it tests of real images are skipped.
"""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from indexer.errors import TaskError
from indexer.gradients.probe import PROBE_ROWS, probe
from indexer.recipes import cifar10
from indexer.recipes.cifar10 import FLIPPED, SCHEDULE, Normalise, flip, model, sample
from indexer.task import load_task, read_rows

REFERENCE = "indexer.recipes.cifar10:task"
NAMES = np.array(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
EXACT = 1e-6  # of a normalised pixel: two roundings of float32


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    yield
    cifar10._read.cache_clear()


@pytest.fixture(scope="module")
def real() -> Path:
    """Return the folder of the data."""
    folder = Path(os.environ.get("PROPONENT_DATA", "data"))
    if not (folder / cifar10.FILE).is_file():
        pytest.skip(f"{cifar10.FILE} is not in {folder}; PROPONENT_DATA names the folder that has it")
    return folder


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the arrays of a file of 40 and 10 random images, to which PROPONENT_DATA leads."""
    arrays = {
        "x_train": rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8),
        "y_train": np.arange(40, dtype=np.uint8) % 10,
        "x_test": rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8),
        "y_test": np.arange(10, dtype=np.uint8),
        "label_names": NAMES,
    }
    write(tmp_path, arrays)
    monkeypatch.setenv("PROPONENT_DATA", str(tmp_path))
    return arrays


def write(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    (folder / cifar10.FILE).parent.mkdir(exist_ok=True)
    np.savez(folder / cifar10.FILE, **arrays)  # type: ignore[arg-type]  # a stub takes every name for a flag


def test_importing_reads_nothing_and_the_absent_file_is_said_when_it_is_asked_for(tmp_path: Path) -> None:
    program = "import indexer.recipes.cifar10 as c; c.model(); print(sorted(vars(c).keys() & {'task', 'true_labels'}))"
    environment = os.environ | {"PROPONENT_DATA": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["task", "train_set", "test_set", "true_labels"])
def test_an_absent_file_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROPONENT_DATA", str(tmp_path))
    with pytest.raises(TaskError) as caught:
        getattr(cifar10, name)
    assert str(caught.value) == (
        f"expected images of CIFAR-10 at {str(tmp_path / 'cifar10' / 'cifar10_subset.npz')!r}, found no file; set "
        "PROPONENT_DATA to the folder that has cifar10/cifar10_subset.npz (what it must hold is written in "
        "indexer/recipes/cifar10.py)"
    )


def test_the_default_folder_is_data_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROPONENT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError, match=r"at 'data.cifar10.cifar10_subset\.npz', found no file"):
        load_task(REFERENCE)


def test_a_file_without_an_array_is_refused(tmp_path: Path, made_up: dict[str, np.ndarray]) -> None:
    write(tmp_path, {name: array for name, array in made_up.items() if name != "y_test"})
    with pytest.raises(TaskError, match=r"expected the arrays x_train, y_train, x_test, y_test, label_names: .*y_test"):
        sample(tmp_path)


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, made_up: dict[str, np.ndarray], kept: int) -> None:
    path = tmp_path / cifar10.FILE
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TaskError, match=r"expected the arrays .*; fetch the file again"):
        sample(tmp_path)


def test_a_name_that_there_is_not_is_no_name(made_up: dict[str, np.ndarray]) -> None:
    with pytest.raises(AttributeError, match=r"'indexer\.recipes\.cifar10' has no attribute 'tusk'"):
        getattr(cifar10, "tusk")  # noqa: B009 - what is tested
    with pytest.raises(TaskError, match=r"has no name 'tusk'"):
        load_task("indexer.recipes.cifar10:tusk")


def test_made_up_images_make_a_task(made_up: dict[str, np.ndarray]) -> None:
    task = load_task(REFERENCE)
    assert task is cifar10.task
    assert list(task.labels or ()) == NAMES.tolist()
    assert cifar10.true_labels == [NAMES[row % 10] for row in range(40)]
    inputs, targets = read_rows(task.train, range(40))
    assert (inputs.shape, inputs.dtype, targets.dtype) == ((40, 3, 32, 32), torch.float32, torch.int64)
    np.testing.assert_allclose(255 * inputs.permute(0, 2, 3, 1).numpy(), made_up["x_train"], atol=1e-4)
    assert (targets.numpy() != made_up["y_train"]).sum() == 4
    assert task.test is not None
    np.testing.assert_array_equal(read_rows(task.test, range(10))[1], made_up["y_test"])


def test_a_preview_reads_back_as_the_input(made_up: dict[str, np.ndarray]) -> None:
    preview = cifar10.task.codec.preview(cifar10.train_set[3][0])
    payload = {"data": base64.b64encode(preview.data).decode()}
    assert torch.equal(cifar10.task.codec.decode(payload), cifar10.train_set[3][0])


def test_the_model_normalises_its_inputs() -> None:
    """An image of the mean colour is zero, and one deviation brighter is one."""
    normalise = Normalise()
    mean, std = torch.tensor(cifar10.MEAN), torch.tensor(cifar10.STD)
    image = torch.stack([mean, mean + std])[:, :, None, None].expand(2, 3, 32, 32) / 255
    torch.testing.assert_close(
        normalise(image), torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 3, 32, 32), atol=EXACT, rtol=0
    )


def test_the_model_is_wholly_on_the_factor_path(rng: np.random.Generator) -> None:
    module = model()
    assert sum(parameter.numel() for parameter in module.parameters()) == 68_426
    images = torch.from_numpy(rng.random((PROBE_ROWS, 3, 32, 32), dtype=np.float32))
    assert module(images).shape == (PROBE_ROWS, 10)
    layout = probe(module, cifar10.loss, (images, torch.arange(PROBE_ROWS) % 10))
    assert {block.path for block in layout.blocks} == {"factors"}


def test_the_outputs_of_an_example_do_not_depend_on_the_batch(rng: np.random.Generator) -> None:
    images = torch.from_numpy(rng.random((8, 3, 32, 32), dtype=np.float32))
    module = model().train()
    torch.testing.assert_close(module(images)[:1], module(images[:1]))
    torch.testing.assert_close(module(images), module.eval()(images))


def test_the_loss_is_one_number_an_example(rng: np.random.Generator) -> None:
    outputs, targets = torch.from_numpy(rng.normal(size=(5, 10))), torch.arange(5)
    assert cifar10.loss(outputs, targets).shape == (5,)
    torch.testing.assert_close(cifar10.loss(outputs, targets).mean(), F.cross_entropy(outputs, targets))


@given(st.integers(1, 200), st.floats(0, 1), st.integers(2, 10), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_stated_share_of_labels_is_flipped_to_another_class(n: int, share: float, classes: int, seed: int) -> None:
    labels = (np.arange(n) % classes).astype(np.uint8)
    given_labels = flip(labels, share, classes, seed)
    assert (given_labels != labels).sum() == round(share * n)
    assert given_labels.max(initial=0) < classes
    np.testing.assert_array_equal(given_labels, flip(labels, share, classes, seed))
    np.testing.assert_array_equal(labels, np.arange(n) % classes)


def test_every_other_class_is_as_likely() -> None:
    n, classes = 90_000, 10
    counts = np.bincount(flip(np.zeros(n, dtype=np.uint8), 1.0, classes, seed=1), minlength=classes)
    expected = n / (classes - 1)
    assert counts[0] == 0
    assert np.abs(counts[1:] - expected).max() < 5 * np.sqrt(expected)  # five standard deviations


def test_the_schedule_ends_with_a_checkpoint_and_without_a_small_batch() -> None:
    assert SCHEDULE.keep[-1] == SCHEDULE.epochs
    assert sorted(set(SCHEDULE.keep)) == list(SCHEDULE.keep)
    assert 5000 % SCHEDULE.batch_size == 0


def test_the_real_images_are_balanced(real: Path) -> None:
    arrays = sample(real)
    assert {name: (arrays[name].shape, arrays[name].dtype.name) for name in ("x_train", "x_test")} == {
        "x_train": ((5000, 32, 32, 3), "uint8"),
        "x_test": ((1000, 32, 32, 3), "uint8"),
    }
    assert np.bincount(arrays["y_train"]).tolist() == [500] * 10
    assert np.bincount(arrays["y_test"]).tolist() == [100] * 10
    assert arrays["label_names"].tolist() == NAMES.tolist()


def test_one_real_label_in_ten_is_wrong_and_always_the_same_ones(real: Path) -> None:
    targets = read_rows(cifar10.task.train, range(5000))[1]
    wrong = [row for row, y in enumerate(targets) if cifar10.task.label_of(y) != cifar10.true_labels[row]]
    assert len(wrong) == FLIPPED * 5000
    assert wrong[:8] == [12, 24, 31, 37, 38, 47, 68, 74]
    assert [int(targets[row]) for row in wrong[:8]] == [0, 7, 4, 9, 4, 9, 6, 6]


def test_the_published_means_fit_the_real_images(real: Path) -> None:
    """500 of the 5,000 images of each class: means within a few grey levels of those of all 50,000."""
    images = sample(real)["x_train"].reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(images.mean(axis=0), cifar10.MEAN, atol=2)
    np.testing.assert_allclose(images.std(axis=0), cifar10.STD, atol=2)


def test_the_model_learns_from_the_real_images(real: Path) -> None:
    inputs, targets = read_rows(cifar10.task.train, range(1000))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = model()
    optimizer = torch.optim.SGD(module.parameters(), lr=SCHEDULE.learning_rate)
    losses = []
    for _ in range(3):
        for x, y in zip(
            torch.split(inputs, SCHEDULE.batch_size), torch.split(targets, SCHEDULE.batch_size), strict=True
        ):
            optimizer.zero_grad()
            value = cifar10.loss(module(x), y).mean()
            torch.autograd.backward(value)
            optimizer.step()
            losses.append(value.item())
    assert np.mean(losses[-20:]) < np.log(10) - 0.1 < np.mean(losses[:20])
