"""Make the sample of MNIST that the package ships, from the four original IDX files.

    python -m indexer.recipes.mnist_sample data/mnist indexer/recipes/data/mnist_sample.npz

450 training digits and 50 test digits of each class, drawn without replacement; 5% of the training labels are then
replaced by another class, drawn uniformly. Everything follows from one seed.
"""

import gzip
import sys
from pathlib import Path

import numpy as np

SEED = 0
TRAIN_PER_CLASS = 450
TEST_PER_CLASS = 50
FLIPPED = 0.05


def read_idx(path: Path) -> np.ndarray:
    """Return the array of a gzip-compressed IDX file of unsigned bytes."""
    data = gzip.decompress(path.read_bytes())
    dimensions = data[3]
    shape = np.frombuffer(data, dtype=">i4", count=dimensions, offset=4)
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def stratified(labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Return row numbers, the same count of each class, shuffled."""
    rows = [rng.choice(np.flatnonzero(labels == digit), per_class, replace=False) for digit in range(10)]
    return rng.permutation(np.concatenate(rows))


def make_sample(mnist: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the sample.

    x_train, x_test: uint8 [n, 28, 28]; y_train: labels as trained on, some flipped; true_train: the right ones;
    rows_train, rows_test: row numbers in the original files.
    """
    rng = np.random.default_rng(SEED)
    y_train, y_test = (read_idx(mnist / f"{name}-labels-idx1-ubyte.gz") for name in ("train", "t10k"))
    rows_train, rows_test = stratified(y_train, TRAIN_PER_CLASS, rng), stratified(y_test, TEST_PER_CLASS, rng)
    true_train = y_train[rows_train]
    given = true_train.copy()
    flipped = rng.choice(len(given), int(FLIPPED * len(given)), replace=False)
    given[flipped] = (given[flipped] + rng.integers(1, 10, len(flipped))) % 10
    return {
        "x_train": read_idx(mnist / "train-images-idx3-ubyte.gz")[rows_train],
        "y_train": given,
        "true_train": true_train,
        "rows_train": rows_train.astype(np.int32),
        "x_test": read_idx(mnist / "t10k-images-idx3-ubyte.gz")[rows_test],
        "y_test": y_test[rows_test],
        "rows_test": rows_test.astype(np.int32),
    }


if __name__ == "__main__":
    np.savez_compressed(sys.argv[2], **make_sample(Path(sys.argv[1])))  # type: ignore[arg-type]  # a stub takes every name for a flag
