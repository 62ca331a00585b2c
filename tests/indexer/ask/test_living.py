"""What an answer may name: living rows that pass the filter, in the order of all; and which version is asked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import ConcatDataset

from indexer import Ask, Filter, Hit, KnownExample, Question, Task
from indexer.index.tombstones import write_tombstones
from indexer.index.versions import commit, open_version

QUESTION = Question(KnownExample("test", "17"), k=300)


def without(folder: Path, positions: list[int]) -> str:
    """Commit a version without some rows, and return its name."""
    version = open_version(folder)
    vectors = version.manifest.vectors
    deleted = write_tombstones(version.objects, np.array(positions, np.int64))
    changed = {"vectors": vectors.model_copy(update={"deleted": deleted}), "parent": version.version, "edit": "delete"}
    return commit(folder, version.manifest.model_copy(update=changed)).version


def left(hits: tuple[Hit, ...], gone: set[str]) -> list[tuple[int, str, float]]:
    """What is left of a whole ranking: ranks anew, ids and scores as they are."""
    return [(rank, hit.id, hit.score) for rank, hit in enumerate((h for h in hits if h.id not in gone), 1)]


def ranked(hits: tuple[Hit, ...]) -> list[tuple[int, str, float]]:
    return [(hit.rank, hit.id, hit.score) for hit in hits]


@pytest.fixture
def copy(index_folder: Path, copy_of: Callable[[Path], Path]) -> Path:
    return copy_of(index_folder)


@pytest.mark.parametrize("gone", [[0], list(range(0, 300, 2)), list(range(1, 300))])
def test_deleted_rows_are_never_named(copy: Path, ask: Ask, task: Task, gone: list[int]) -> None:
    """Also those whose outputs an opening compares: 0, 37, 75, ... are among them."""
    whole = ask.query(QUESTION)
    without(copy, gone)
    found = Ask.open(copy, task).query(QUESTION)
    ids = {str(position) for position in gone}
    assert ranked(found.proponents) == left(whole.proponents, ids)
    assert ranked(found.opponents) == left(whole.opponents, ids)
    assert found.exhaustive and len(found.proponents) == 300 - len(gone)


def test_an_older_version_answers_as_before(copy: Path, ask: Ask, task: Task) -> None:
    first = open_version(copy).version
    second = without(copy, [0, 5])
    before, after = Ask.open(copy, task, first), Ask.open(copy, task)
    assert (before.query(QUESTION).version, after.query(QUESTION).version) == (first, second)
    assert before.query(QUESTION).proponents == ask.query(QUESTION).proponents
    assert len(after.query(QUESTION).proponents) == 298


def test_an_index_whose_probe_examples_are_all_deleted_still_checks_its_task(copy: Path, task: Task) -> None:
    probed = [int(id) for id in open_version(copy).manifest.probe.ids]
    without(copy, probed)
    assert len(Ask.open(copy, task).query(QUESTION).proponents) == 292


@pytest.mark.parametrize("k", [1, 10, 300])
def test_a_filter_leaves_the_order_and_the_scores(ask: Ask, k: int) -> None:
    whole = ask.query(QUESTION)
    wanted = Filter(labels=["3", "5"], exclude_ids=[whole.proponents[0].id])
    found = ask.query(replace(QUESTION, k=k, filter=wanted))
    gone = {hit.id for hit in whole.proponents if hit.label not in ("3", "5")} | {whole.proponents[0].id}
    assert ranked(found.proponents) == left(whole.proponents, gone)[:k]
    assert ranked(found.opponents) == left(whole.opponents, gone)[:k]
    assert found.exhaustive


def test_a_filter_that_nothing_passes_names_nothing(ask: Ask) -> None:
    found = ask.query(replace(QUESTION, filter=Filter(least_self_influence=1e9)))
    assert (found.proponents, found.opponents, found.exhaustive) == ((), (), True)


def test_rows_that_the_data_has_and_the_index_not_are_said(index_folder: Path, task: Task) -> None:
    assert task.test is not None
    for more, told in ((1, "1 training example more"), (100, "100 training examples more")):
        longer = replace(task, train=ConcatDataset([task.train, [task.test[i] for i in range(more)]]))  # type: ignore[list-item]
        [warning] = Ask.open(index_folder, longer).query(QUESTION).warnings
        assert warning == f"the task has {told} than this index: add what is new with `proponent append`"
