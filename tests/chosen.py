"""A part of a data set, in memory: any rows, in any order, any number of times."""

from collections.abc import Sequence

from torch.utils.data import TensorDataset

from indexer.task import Examples, read_rows


def chosen(examples: Examples, rows: Sequence[int]) -> TensorDataset:
    """Return the rows as a data set of their own."""
    return TensorDataset(*read_rows(examples, rows))
