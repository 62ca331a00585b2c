"""The demo's task: real digits with 5% wrong labels, and the model that is trained on them."""

from importlib.resources import files

import numpy as np
import torch

from indexer.gradients.probe import PROBE_ROWS, probe
from indexer.recipes import mnist
from indexer.task import read_rows


def test_the_sample_is_balanced() -> None:
    sample = mnist.sample()
    assert {name: (array.shape, array.dtype.name) for name, array in sample.items()} == {
        "x_train": ((4500, 28, 28), "uint8"),
        "y_train": ((4500,), "uint8"),
        "true_train": ((4500,), "uint8"),
        "rows_train": ((4500,), "int32"),
        "x_test": ((500, 28, 28), "uint8"),
        "y_test": ((500,), "uint8"),
        "rows_test": ((500,), "int32"),
    }
    assert np.bincount(sample["true_train"]).tolist() == [450] * 10
    assert np.bincount(sample["y_test"]).tolist() == [50] * 10


def test_one_label_in_twenty_is_wrong() -> None:
    sample = mnist.sample()
    assert (sample["y_train"] != sample["true_train"]).sum() == 225
    assert sample["y_train"].max() == 9
    assert mnist.true_labels == [str(digit) for digit in sample["true_train"]]


def test_no_digit_is_there_twice() -> None:
    sample = mnist.sample()
    for split, total in (("train", 60_000), ("test", 10_000)):
        rows = sample[f"rows_{split}"]
        assert len(set(rows.tolist())) == len(rows)
        assert 0 <= rows.min() <= rows.max() < total


def test_the_package_stays_small() -> None:
    assert len((files("indexer.recipes") / "data" / "mnist_sample.npz").read_bytes()) < 1_500_000


def test_inputs_are_pixels_between_zero_and_one() -> None:
    inputs, targets = read_rows(mnist.task.train, range(100))
    assert (inputs.shape, inputs.dtype, targets.dtype) == ((100, 1, 28, 28), torch.float32, torch.int64)
    assert (inputs.min().item(), inputs.max().item()) == (0, 1)
    assert targets.tolist() == mnist.sample()["y_train"][:100].tolist()
    assert len(mnist.task.train) == 4500
    assert mnist.task.test is not None
    assert len(mnist.task.test) == 500


def test_a_preview_shows_the_pixels_of_the_sample() -> None:
    preview = mnist.task.codec.preview(mnist.train_set[0][0])
    assert preview.media_type == "image/png"
    assert preview.data.startswith(b"\x89PNG")


def test_the_model_is_wholly_on_the_factor_path() -> None:
    module = mnist.task.model()
    assert sum(parameter.numel() for parameter in module.parameters()) == 7_946
    layout = probe(module, mnist.task.loss, read_rows(mnist.task.train, range(PROBE_ROWS)))
    assert [block.path for block in layout.blocks] == ["factors"] * 3


def test_the_schedule_keeps_the_last_epoch() -> None:
    assert mnist.SCHEDULE.keep[-1] == mnist.SCHEDULE.epochs
    assert sorted(set(mnist.SCHEDULE.keep)) == list(mnist.SCHEDULE.keep)
