"""The shipped sample is made again, array by array, where the original files are at hand."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.recipes.mnist import sample
from indexer.recipes.mnist_sample import make_sample, read_idx, stratified


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_idx_files_are_read_in_their_shape(tmp_path_factory: pytest.TempPathFactory, shape: list[int]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path_factory.mktemp("idx") / "file.gz"
    path.write_bytes(gzip.compress(struct.pack(f">4B{len(shape)}i", 0, 0, 8, len(shape), *shape) + array.tobytes()))
    np.testing.assert_array_equal(read_idx(path), array)


def test_every_class_is_drawn_equally_and_without_replacement(rng: np.random.Generator) -> None:
    labels = rng.permutation(np.repeat(np.arange(10), [30, 20, 25, 40, 20, 20, 33, 20, 21, 22]))
    rows = stratified(labels, 20, rng)
    assert np.bincount(labels[rows]).tolist() == [20] * 10
    assert len(set(rows.tolist())) == 200
    assert labels[rows[:20]].tolist() != [0] * 20


def test_the_shipped_sample_is_the_one_that_is_made() -> None:
    mnist = Path(os.environ.get("PROPONENT_DATA", "data")) / "mnist"
    if not mnist.is_dir():
        pytest.skip(f"the original files are not in {mnist}; PROPONENT_DATA names the folder that has mnist/")
    made, shipped = make_sample(mnist), sample()
    assert made.keys() == shipped.keys()
    for name, array in made.items():
        assert array.dtype == shipped[name].dtype
        np.testing.assert_array_equal(array, shipped[name])
