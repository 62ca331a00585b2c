"""The training examples that bases and codes are fitted on: a sample that is the same for a seed and number of rows."""

from collections.abc import Iterator

from indexer.building.plan import batches
from indexer.building.progress import Progress
from indexer.methods.method import Batch, Sample
from indexer.projection.random_matrix import random_order
from indexer.task import Task, read_rows


def sample_rows(rows: int, count: int, seed: int) -> list[int]:
    """Return the rows of the sample in rising order; all of them where there are no more.

    >>> sample_rows(10, 4, seed=0) == sample_rows(10, 4, seed=0)
    True
    """
    return sorted(random_order(rows, seed=seed, place=(0, "sample", "rows"))[:count])


def read_sample(task: Task, rows: list[int], batch_size: int, passes: int, progress: Progress) -> Sample:
    """Return what reads the sample's batches, as often as it is called; passes: how often that will be."""
    done = 0

    def sample() -> Iterator[Batch]:
        nonlocal done
        for batch in batches(len(rows), batch_size):
            yield read_rows(task.train, rows[batch.start : batch.stop])
            done += len(batch)
            progress("bases", min(done, passes * len(rows)), passes * len(rows))

    return sample
