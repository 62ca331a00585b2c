"""The sample that bases are fitted on: the same for a seed, whatever the batches, and drawn evenly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from indexer import Task
from indexer.building.progress import silent
from indexer.building.sample import digest, read_sample, sample_rows
from indexer.methods.method import Batch
from indexer.task import read_rows

SEEDS = 400
SPREAD = 5  # standard deviations of a count of draws: one of ten rows leaves them once in 100,000 tests


@given(st.integers(1, 200), st.integers(1, 250), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_sample_is_some_rows_in_rising_order_and_the_same_again(rows: int, count: int, seed: int) -> None:
    found = sample_rows(rows, count, seed)
    assert found == sorted(set(found)) == sample_rows(rows, count, seed)
    assert len(found) == min(rows, count) and set(found) <= set(range(rows))


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    assert set(sample_rows(1000, 20, seed=3)) < set(sample_rows(1000, 200, seed=3))


def test_every_row_is_drawn_as_often_as_any_other() -> None:
    drawn = [row for seed in range(SEEDS) for row in sample_rows(10, 4, seed)]
    deviation = (SEEDS * 0.4 * 0.6) ** 0.5
    for row in range(10):
        assert abs(drawn.count(row) - 0.4 * SEEDS) < SPREAD * deviation


def joined(batches: list[Batch]) -> tuple[Tensor, Tensor]:
    return torch.cat([inputs for inputs, _ in batches]), torch.cat([targets for _, targets in batches])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_batches_make_no_difference_and_every_reading_is_the_same(task: Task, batch_size: int) -> None:
    rows = [2, 3, 5, 7, 11, 13, 17]
    expected = read_rows(task.train, rows)
    sample = read_sample(task, rows, batch_size, 2, silent)
    for _ in range(2):
        batches = list(sample())
        assert [len(targets) for _, targets in batches][:-1] == [batch_size] * (len(batches) - 1)
        torch.testing.assert_close(joined(batches), expected, rtol=0, atol=0)


def test_progress_counts_over_all_passes_and_not_beyond(task: Task) -> None:
    told: list[tuple[str, int, int]] = []
    sample = read_sample(task, [1, 4, 9], 2, 2, lambda *stage: told.append(stage))
    for _ in range(3):
        list(sample())
    assert told == [("bases", done, 6) for done in (2, 3, 5, 6, 6, 6)]


def test_a_digest_is_of_contents_and_their_order(task: Task) -> None:
    found = digest(task.train, [3, 5])
    assert found == digest(task.train, [3, 5])
    assert len({found, digest(task.train, [5, 3]), digest(task.train, [3]), digest(task.train, [3, 6])}) == 4
