"""The training examples that bases and codes are fitted on: a sample that is the same for a seed and number of rows."""

import hashlib
from collections.abc import Iterator, Sequence

from indexer.building.plan import batches
from indexer.building.progress import Progress
from indexer.methods.method import Batch, Sample
from indexer.projection.random_matrix import random_order
from indexer.task import Examples, Task, content_hash, read_rows


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


def digest(examples: Examples, rows: Sequence[int]) -> str:
    """Return a hash over the contents of some examples, in order."""
    found = hashlib.sha256()
    for row in rows:
        inputs, targets = read_rows(examples, [row])
        found.update(content_hash(inputs[0], targets[0]).encode())
    return found.hexdigest()
