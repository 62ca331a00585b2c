"""Segments and tombstones against a plain list of rows: random histories of adding, deleting and adding again."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.codecs import Preview
from indexer.errors import CorruptIndexError, UnknownExampleError
from indexer.index.examples import MOST_SEGMENTS, Example, ExampleRow, Examples, write_examples
from tests.indexer.index.test_examples import as_first_written

IDS = ["a", "b", "c", "d", "e", "f", "0", "it's"]
LABELS = ["cat", "dog", "猫"]
VALUES = st.sampled_from([0.0, 0.25, 0.5, -1.0])  # few, so that there are ties; their sums are exact
ADD = st.tuples(st.sampled_from(IDS), st.sampled_from(LABELS), st.tuples(VALUES, VALUES), st.booleans())
HISTORY = st.lists(
    st.one_of(ADD, ADD, st.tuples(st.just("delete"), st.sampled_from(IDS)), st.just("cut")), min_size=1, max_size=24
)
TEST = [Example("test", "a", 0, None, "dog", ""), Example("test", "z", 1, None, "cat", "")]


class Model:
    """What a version is, as plainly as it can be said: rows in the order of their positions, and which are dead."""

    def __init__(self, history: Sequence[object]) -> None:
        self.segments: list[list[Example]] = [[*TEST]]
        self.stored: list[Example] = []
        self.living: dict[str, Example] = {}
        for event in history:
            if event == "cut":
                if any(row.split == "train" for row in self.segments[-1]) and len(self.segments) < MOST_SEGMENTS:
                    self.segments.append([])
            elif isinstance(event, tuple) and event[0] == "delete":
                self.living.pop(event[1], None)
            elif isinstance(event, tuple) and self.may_add(event[0]):
                self.add(*event)
        self.segments = [rows for rows in self.segments if rows]
        living = {row.position for row in self.living.values()}
        self.deleted = np.array([i for i in range(len(self.stored)) if i not in living], np.int64)
        self.train = sorted(self.living.values(), key=lambda row: row.position or 0)

    def may_add(self, id: str) -> bool:
        """A segment holds an id once, dead or alive."""
        return id not in self.living and all(row.id != id or row.split != "train" for row in self.segments[-1])

    def add(self, id: str, label: str, values: tuple[float, float], as_before: bool) -> None:
        """Add a row: under the number that its id had, as a relabelling does, or under a new one."""
        before = [row.row for row in self.stored if row.id == id]
        number = before[-1] if before and as_before else max((row.row for row in self.stored), default=-1) + 1
        row = Example("train", id, number, len(self.stored), label, f"{id}{len(self.stored)}", values)
        self.segments[-1].append(row)
        self.stored.append(row)
        self.living[id] = row

    def ranked(self, part: int | None, label: str | None) -> list[tuple[Example, float]]:
        valued = [(row, sum(row.self_influence) if part is None else row.self_influence[part]) for row in self.train]
        wanted = [pair for pair in valued if label in (None, pair[0].label)]
        return sorted(wanted, key=lambda pair: (-pair[1], pair[0].position or 0))


def preview_of(row: Example) -> Preview:
    return Preview("text/plain", f"{row.split} {row.id} {row.position}".encode())


def opened(model: Model, folder: Path, old: int = 0) -> Examples:
    """Write the segments, the first ones as the first tables of format 1 were."""
    paths = []
    for number, rows in enumerate(model.segments):
        write_examples(folder / str(number), (ExampleRow(row, preview_of(row)) for row in rows))
        paths.append(folder / str(number) if number >= old else as_first_written(folder / str(number)))
    return Examples(paths, model.deleted)


@given(HISTORY, st.integers(0, 2))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_examples_are_those_of_the_plain_list(
    tmp_path_factory: pytest.TempPathFactory, history: list[object], old: int
) -> None:
    model = Model(history)
    examples = opened(model, tmp_path_factory.mktemp("table"), old)
    examples.check([counts(rows) for rows in model.segments], len(model.stored))
    for id in IDS:
        if id in model.living:
            assert examples.find("train", id) == model.living[id]
            assert examples.preview("train", id) == preview_of(model.living[id])
        else:
            for ask in (examples.find, examples.preview):
                with pytest.raises(UnknownExampleError):
                    ask("train", id)
    backwards = model.train[::-1]
    assert examples.at([row.position or 0 for row in backwards]) == backwards
    by_row = sorted(model.train, key=lambda row: row.row)
    assert pages(partial(page_of_label, examples, None)) == by_row
    assert examples.listing("test", start=0, count=9) == TEST
    for label in LABELS:
        wanted = [row for row in by_row if row.label == label]
        assert pages(partial(page_of_label, examples, label)) == wanted
    assert list(examples.rows()) == [ExampleRow(row, preview_of(row)) for row in (*model.train, *TEST)]
    examples.close()


@given(HISTORY, st.integers(0, 2))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_self_influence_is_that_of_the_plain_list(
    tmp_path_factory: pytest.TempPathFactory, history: list[object], old: int
) -> None:
    model = Model(history)
    examples = opened(model, tmp_path_factory.mktemp("table"), old)
    for part in (None, 1):
        for label in (None, "cat"):
            expected = model.ranked(part, label)
            assert list(examples.self_influence(part=part, label=label)) == expected
            found: list[tuple[Example, float]] = []
            while page := list(examples.self_influence(part=part, label=label, after=after(found), count=3)):
                found += page
            assert found == expected
    assert examples.totals().tolist() == [sum(row.self_influence) for row in model.stored]
    assert examples.next_row("train") == max((row.row + 1 for row in model.stored), default=0)
    assert (examples.next_row("test"), examples.next_row("validation")) == (2, 0)
    examples.close()


BOUND = st.none() | VALUES


@given(
    HISTORY,
    st.none() | st.lists(st.sampled_from([*LABELS, "absent"]), max_size=2),
    st.none() | st.lists(st.sampled_from([*IDS, "absent"]), max_size=5),
    st.lists(st.sampled_from([*IDS, "z"]), max_size=3),
    st.tuples(BOUND, BOUND),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_filters_pass_what_the_plain_list_passes(
    tmp_path_factory: pytest.TempPathFactory,
    history: list[object],
    labels: list[str] | None,
    ids: list[str] | None,
    exclude_ids: list[str],
    bounds: tuple[float | None, float | None],
) -> None:
    model = Model(history)
    examples = opened(model, tmp_path_factory.mktemp("table"))
    least, most = (-np.inf if bounds[0] is None else bounds[0]), (np.inf if bounds[1] is None else bounds[1])
    expected = [
        row.position
        for row in model.train
        if (labels is None or row.label in labels)
        and (ids is None or row.id in ids)
        and row.id not in exclude_ids
        and least <= sum(row.self_influence) <= most
    ]
    assert examples.positions(labels, ids, exclude_ids, bounds).tolist() == expected
    examples.close()


def counts(rows: Sequence[Example]) -> dict[str, int]:
    splits = [row.split for row in rows]
    return {split: splits.count(split) for split in splits}


def page_of_label(examples: Examples, label: str | None, start: int) -> list[Example]:
    return examples.listing("train", start=start, count=2, label=label)


def pages(page_at: Callable[[int], list[Example]]) -> list[Example]:
    found: list[Example] = []
    while page := page_at(len(found)):
        found += page
    return found


def after(found: Sequence[tuple[Example, float]]) -> tuple[float, int] | None:
    return (found[-1][1], found[-1][0].position or 0) if found else None


def test_more_ids_than_a_statement_takes_are_filtered(tmp_path: Path) -> None:
    rows = [Example("train", str(i), i, i, "cat", "") for i in range(1200)]
    write_examples(tmp_path / "table", (ExampleRow(row, preview_of(row)) for row in rows))
    examples = Examples([tmp_path / "table"])
    wanted = [*map(str, range(0, 1200, 2)), *map(str, range(0, 1200, 3))]
    found = examples.positions(None, wanted, list(map(str, range(600))), (None, None))
    assert found.tolist() == [i for i in range(600, 1200) if i % 2 == 0 or i % 3 == 0]


def test_examples_without_self_influence_pass_no_bound(tmp_path: Path) -> None:
    write_examples(tmp_path / "table", [ExampleRow(Example("train", "0", 0, 0, "", ""), Preview("", b""))])
    examples = Examples([tmp_path / "table"])
    assert examples.positions(None, None, (), (None, None)).tolist() == [0]
    assert examples.positions(None, None, (), (-1e300, None)).tolist() == []
    assert examples.totals().shape == (0,)


@pytest.mark.parametrize("count", [0, MOST_SEGMENTS + 1])
def test_no_segments_and_too_many_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(CorruptIndexError, match=f"expected 1 to 8 segments of examples, found {count}; was the index"):
        Examples([tmp_path / "table"] * count)


def test_as_many_segments_as_there_may_be_are_read(tmp_path: Path) -> None:
    history = [event for id in IDS for event in ((id, "cat", (0.0, 0.5), False), "cut")]
    model = Model([*history, ("delete", "c")])
    assert len(model.segments) == MOST_SEGMENTS
    assert list(opened(model, tmp_path).rows()) == [ExampleRow(row, preview_of(row)) for row in (*model.train, *TEST)]


def test_a_segment_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_examples(tmp_path / "table", [ExampleRow(TEST[0], Preview("", b""))])
    gone = tmp_path / "gone"
    with pytest.raises(CorruptIndexError, match=rf"cannot be read \(segment 2, {gone}: unable to open database"):
        Examples([tmp_path / "table", gone])
    assert not gone.exists()


def test_self_influence_of_some_rows_only_is_refused(tmp_path: Path) -> None:
    model = Model([("a", "cat", (0.0, 0.5), False), ("b", "cat", (0.0, 0.5), False)])
    opened(model, tmp_path).close()
    with sqlite3.connect(tmp_path / "0") as connection:
        connection.execute("DELETE FROM self_influence_total WHERE position = 0")
    connection.close()
    with pytest.raises(CorruptIndexError, match="some training examples have a self-influence and others none; verify"):
        Examples([tmp_path / "0"]).totals()


MANY = [Example("train", str(i), i, i, LABELS[i % 3], "", (i % 7 / 4, i % 5 / 4)) for i in range(100)]
QUESTIONS: dict[str, Callable[[Examples], object]] = {
    "self_influence_total USING COVERING INDEX self_influence_total_order (value<?)": lambda table: list(
        table.self_influence(after=(1.0, 5), count=10)
    ),
    "self_influence USING COVERING INDEX self_influence_order (part=? AND value<?)": lambda table: list(
        table.self_influence(part=1, after=(1.0, 5), count=10)
    ),
    "example USING INDEX example_row (split=?)": lambda table: table.listing("train", start=5, count=10),
    "example USING INDEX example_label (split=? AND label=?)": lambda table: table.listing(
        "train", start=5, count=10, label="cat"
    ),
    "example USING INDEX sqlite_autoindex_example_1 (position=?)": lambda table: table.at([1, 99]),
    "example USING PRIMARY KEY (split=? AND id=?)": lambda table: table.find("train", "1"),
}


def plan(table: Examples, ask: Callable[[Examples], object]) -> list[str]:
    """Return how SQLite goes about the first statement of a question."""
    statements: list[str] = []
    table._connection.set_trace_callback(statements.append)
    ask(table)
    table._connection.set_trace_callback(None)
    return [step[3] for step in table._connection.execute(f"EXPLAIN QUERY PLAN {statements[0]}")]


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Examples, Examples]:
    """The many in one segment, and in five with tombstones."""
    paths = [tmp_path / str(number) for number in range(6)]
    for path, rows in zip(paths, [MANY, *(MANY[start : start + 20] for start in range(0, 100, 20))], strict=True):
        write_examples(path, (ExampleRow(row, preview_of(row)) for row in rows))
    return Examples(paths[:1]), Examples(paths[1:], np.arange(0, 99, 7))


@pytest.mark.parametrize("expected", QUESTIONS)
def test_tables_are_read_along_their_indexes(tables: tuple[Examples, Examples], expected: str) -> None:
    """What makes 60,000 rows as fast as 60: no row is read that is not listed, and none is sorted.

    Of several segments each is read in its order; their rows are merged one by one.
    """
    one, five = tables
    assert plan(one, QUESTIONS[expected]) == [f"SEARCH s0.{expected}"]
    steps = plan(five, QUESTIONS[expected])
    assert [step for step in steps if step.startswith(("SEARCH", "SCAN"))] == [
        f"SEARCH s{number}.{expected}" for number in range(5)
    ]
    assert not [step for step in steps if "TEMP B-TREE" in step or "MATERIALIZE" in step]
