"""Segments against the manifest: whatever does not fit is refused, and the segment named."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from indexer.codecs import Preview
from indexer.errors import CorruptIndexError
from indexer.index.check_segments import check_segments
from indexer.index.examples import Example, ExampleRow, write_examples
from indexer.index.segments import Segments

FIRST = [
    *(Example("train", f"a{i}", i, i, "cat", "") for i in range(3)),
    *(Example("test", f"t{i}", i, None, "cat", "") for i in range(2)),
]
SECOND = [Example("train", f"b{i}", 3 + i, 3 + i, "dog", "") for i in range(2)]
SPLITS = [{"train": 3, "test": 2}, {"train": 2}]


def segments(folder: Path, *tables: Sequence[Example], deleted: Sequence[int] = ()) -> Segments:
    paths = []
    for number, table in enumerate(tables):
        write_examples(folder / str(number), (ExampleRow(row, Preview("text/plain", b"")) for row in table))
        paths.append(folder / str(number))
    return Segments(paths, np.array(deleted, np.int64))


def test_what_the_manifest_says_passes(tmp_path: Path) -> None:
    check_segments(segments(tmp_path, FIRST, SECOND, deleted=[1, 4]), SPLITS, 5)


def test_a_split_without_examples_may_be_named(tmp_path: Path) -> None:
    check_segments(segments(tmp_path, FIRST, SECOND), [{"train": 3, "test": 2, "validation": 0}, {"train": 2}], 5)


def moved(rows: Sequence[Example], by: int) -> list[Example]:
    return [Example(row.split, row.id, row.row, (row.position or 0) + by, row.label, row.content) for row in rows]


@pytest.mark.parametrize(
    ("second", "found"),
    [
        (SECOND[:1], "1 of 'train' with 1 positions from 3 to 3"),
        (moved(SECOND, 1), "2 of 'train' with 2 positions from 4 to 5"),
        (moved(SECOND, -3), "2 of 'train' with 2 positions from 0 to 1"),
        ([Example("train", "b", 3, None, "", ""), SECOND[1]], "2 of 'train' with 1 positions from 4 to 4"),
        (
            [Example("test", "b", 3, 3, "", ""), SECOND[1]],
            "1 of 'test' with 1 positions from 3 to 3, 1 of 'train' with 1 positions from 4 to 4",
        ),
        (
            [*SECOND, Example("x", "b", 0, None, "", "")],
            "2 of 'train' with 2 positions from 3 to 4, 1 of 'x' with 0 po",
        ),
        ([], "nothing"),
    ],
)
def test_another_segment_is_refused_by_its_number(tmp_path: Path, second: list[Example], found: str) -> None:
    with pytest.raises(CorruptIndexError) as exc:
        check_segments(segments(tmp_path, FIRST, second), SPLITS, 5)
    assert str(exc.value).startswith(f"segment 2 of the table of examples holds {found}")
    assert str(exc.value).endswith("; the manifest says 2 of 'train' with 2 positions from 3 to 4: rebuild the index")


def test_more_or_fewer_segments_are_refused(tmp_path: Path) -> None:
    opened = segments(tmp_path, FIRST, SECOND)
    with pytest.raises(CorruptIndexError, match="the table of examples has 2 segments; the manifest says 1: rebuild"):
        check_segments(opened, SPLITS[:1], 3)


def test_other_rows_than_vectors_are_refused(tmp_path: Path) -> None:
    opened = segments(tmp_path, FIRST, SECOND)
    with pytest.raises(
        CorruptIndexError, match="table of examples holds 5 positions; the manifest says 6: rebuild the"
    ):
        check_segments(opened, SPLITS, 6)


def test_an_id_may_come_again_when_it_was_deleted(tmp_path: Path) -> None:
    again = [Example("train", "a1", 1, 3, "dog", ""), Example("train", "t0", 9, 4, "dog", "")]
    opened = segments(tmp_path, FIRST, again, deleted=[1])
    check_segments(opened, SPLITS, 5)
    opened.close()
    check_segments(Segments([tmp_path / "0", tmp_path / "1"], np.array([3])), SPLITS, 5)


def test_an_id_that_lives_twice_is_refused(tmp_path: Path) -> None:
    again = [Example("train", "a1", 1, 3, "dog", ""), Example("train", "a2", 2, 4, "dog", "")]
    with pytest.raises(CorruptIndexError) as exc:
        check_segments(segments(tmp_path, FIRST, again, deleted=[1]), SPLITS, 5)
    assert str(exc.value) == (
        "segment 2 of the table of examples holds example 'a2' of split 'train', which segment 1 holds too, and "
        "neither is deleted; rebuild the index"
    )
