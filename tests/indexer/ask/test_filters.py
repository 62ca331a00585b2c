"""Filters: the rows that pass are those that pass every part, living ones only; what is unknown is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer import Filter
from indexer.ask.filters import selected_rows
from indexer.codecs import Preview
from indexer.errors import QuestionError, UnknownLabelError
from indexer.index.examples import Example, ExampleRow, Examples, write_examples

ROWS = [
    Example("train", str(row), row, row, "ab"[row % 2], "", (float(row), 0.5 * row)) for row in range(8)
]  # self-influence 0, 1.5, 3, ... 10.5


def opened(folder: Path, deleted: tuple[int, ...] = (), rows: list[Example] = ROWS) -> Examples:
    path = folder / "examples.sqlite"
    write_examples(path, [ExampleRow(example, Preview("text/plain", b"")) for example in rows])
    return Examples([path], np.array(deleted, np.int64))


def passing(wanted: Filter, examples: Examples) -> list[int]:
    rows = selected_rows(wanted, examples, None, len(ROWS))
    assert len(rows) == len(ROWS)
    return np.flatnonzero(rows).tolist()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(), [0, 2, 3, 4, 5, 6, 7]),
        (Filter(labels=["b"]), [3, 5, 7]),
        (Filter(labels=["a", "b"], exclude_ids=["2", "3"]), [0, 4, 5, 6, 7]),
        (Filter(labels=[]), []),
        (Filter(ids=["6", "0", "0"]), [0, 6]),
        (Filter(ids=[]), []),
        (Filter(ids=["6", "0"], exclude_ids=["0"]), [6]),
        (Filter(least_self_influence=4.5), [3, 4, 5, 6, 7]),
        (Filter(least_self_influence=4.5, most_self_influence=6.0), [3, 4]),
        (Filter(labels=["a"], ids=["2", "4", "5"], exclude_ids=["2"], most_self_influence=6.0), [4]),
        (Filter(most_self_influence=-1.0), []),
    ],
)
def test_what_passes_every_part_is_kept(tmp_path: Path, wanted: Filter, expected: list[int]) -> None:
    assert passing(wanted, opened(tmp_path, deleted=(1,))) == expected


def test_unknown_labels_and_ids_are_refused(tmp_path: Path) -> None:
    examples = opened(tmp_path, deleted=(1,))
    with pytest.raises(UnknownLabelError, match="unknown label; expected one that an example of the index has"):
        passing(Filter(labels=["c"]), examples)
    with pytest.raises(QuestionError, match=r"filter\.ids: 2 of 3 are not the id of a training example"):
        passing(Filter(ids=["0", "1", "nope"]), examples)
    with pytest.raises(QuestionError, match=r"filter\.exclude_ids: 1 of 1 are not the id of a training example"):
        passing(Filter(exclude_ids=["8"]), examples)


def test_an_index_without_self_influence_is_not_filtered_by_it(tmp_path: Path) -> None:
    examples = opened(tmp_path, rows=[replace(example, self_influence=()) for example in ROWS])
    assert passing(Filter(labels=["a"]), examples) == [0, 2, 4, 6]
    with pytest.raises(QuestionError, match="this index has no self-influence"):
        passing(Filter(least_self_influence=0.0), examples)
