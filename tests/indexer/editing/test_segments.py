"""Segments: one more for each edit that adds rows, and few of them however many edits there were."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer import append, delete, relabel
from indexer.codecs import Preview
from indexer.editing import segments
from indexer.editing.edit import verified_examples
from indexer.editing.segments import with_segment, write_segment
from indexer.index.examples import MOST_SEGMENTS, Example, ExampleRow, Examples
from indexer.index.manifest import ExamplesEntry
from indexer.index.objects import Objects
from tests.indexer.editing.small import BUILT, LABELS, TARGETS, small_task


def row(id: int, position: int) -> ExampleRow:
    """An example whose label and preview say its position, so that every row is another one."""
    example = Example("train", str(id), id, position, f"label {position}", f"{position:032x}", (0.1 * position,))
    return ExampleRow(example, Preview("text/plain", str(position).encode()))


def test_there_are_never_more_than_can_be_read_together(tmp_path: Path) -> None:
    """Ids 0 to 9, then two at a time again: rows of one id may meet in a table, and only the last of them is alive."""
    objects = Objects(tmp_path / "objects")
    stored = [row(id, id) for id in range(10)]
    entries = [ExamplesEntry(object=write_segment(objects, stored), splits={"train": 10})]
    counts = []
    for start in range(10, 40, 2):
        new = [row((start + i) % 10, start + i) for i in range(2)]
        entries = with_segment(objects, entries, iter(new), 2)
        stored += new
        counts.append(len(entries))
        dead = np.arange(start - 8)
        with closing(Examples([objects.path(entry.object) for entry in entries], dead)) as examples:
            examples.check([entry.splits for entry in entries], start + 2)
            assert list(examples.rows()) == stored[-10:]
            assert examples.next_row("train") == 10
            np.testing.assert_allclose(examples.totals(), 0.1 * np.arange(start + 2))
            assert examples.find("train", str(new[1].example.row)) == new[1].example
    assert counts == [*range(2, MOST_SEGMENTS + 1), *range(2, MOST_SEGMENTS + 1), 2]


def test_an_index_may_be_added_to_any_number_of_times(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MOST_SEGMENTS", 3)
    for row_number in (BUILT, BUILT + 1, BUILT + 2):
        append(folder, small_task(row_number + 1))
    delete(folder, [str(BUILT + 1)])
    label = LABELS[(int(TARGETS[BUILT]) + 1) % 3]
    version = relabel(folder, small_task(), {str(BUILT): label})
    assert [entry.splits["train"] for entry in version.manifest.examples] == [BUILT, 3, 1]  # 1, 2, 3, 2 and 3 segments
    with closing(verified_examples(version)) as examples:
        found = {e.id: e.label for e in examples.listing("train", start=0, count=99)}
    names = {str(i): LABELS[int(target)] for i, target in enumerate(TARGETS[: BUILT + 3]) if i != BUILT + 1}
    assert found == names | {str(BUILT): label}
