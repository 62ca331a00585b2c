"""The table of examples: found by name and by position, listed in order, read from any thread, refused when damaged."""

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from indexer.codecs import Preview
from indexer.errors import CorruptIndexError, QuestionError, UnknownExampleError, UnknownLabelError
from indexer.index.examples import Example, ExampleRow, Examples, open_examples, write_examples
from indexer.index.versions import open_version
from tests.edited import with_deleted, with_segment

TRAIN = [
    Example("train", "9", 0, 0, "cat", "a0", (1.0, 2.0)),
    Example("train", "10", 1, 1, "dog", "a1", (4.0, 0.25)),
    Example("train", "x'; --", 2, 2, "", "a2", (2.0, 1.0)),
    Example("train", "ünï", 3, 3, "猫", "a3", (0.0, 0.5)),
]
GOLDEN = Path(__file__).parents[2] / "golden"
PARTS = 3
LABELS = ["cat", "dog", "猫"]
TEST = [Example("test", "9", 0, None, "dog", "b0"), Example("test", "0", 1, None, "dog", "b1")]


def preview_of(example: Example) -> Preview:
    return Preview("image/png", f"{example.split} {example.id}\0".encode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_examples(tmp_path / "table", (ExampleRow(example, preview_of(example)) for example in (*TRAIN, *TEST)))
    return tmp_path / "table"


@pytest.fixture
def examples(path: Path) -> Examples:
    return Examples([path])


def write(path: Path, examples: Sequence[Example]) -> Path:
    write_examples(path, (ExampleRow(example, preview_of(example)) for example in examples))
    return path


def as_first_written(path: Path) -> Path:
    """Take away what the first tables of format 1 did not have."""
    with sqlite3.connect(path) as connection:
        for kind, name in (("INDEX", "example_label"), ("INDEX", "self_influence_order")):
            connection.execute(f"DROP {kind} {name}")
        connection.execute("DROP TABLE self_influence_total")
    connection.close()
    return path


@pytest.fixture
def many(rng: np.random.Generator) -> list[Example]:
    """400 training examples in no order: few values, so that there are ties; quarters, so that every sum is exact."""
    values = rng.integers(0, 6, size=(400, PARTS)) / 4
    places = rng.permutation(400).tolist()
    return [
        Example("train", str(row), row, places[row], LABELS[row % 7 % 3], "", tuple(values[row].tolist()))
        for row in range(400)
    ]


@pytest.fixture(params=[Path, as_first_written], ids=["new", "old"])
def table(request: pytest.FixtureRequest, tmp_path: Path, many: list[Example]) -> Examples:
    """The many, and a few test examples with the same labels, in a table of today and in one of the first."""
    aged: Callable[[Path], Path] = request.param
    return Examples([aged(write(tmp_path / "many", [*many, *TEST]))])


def ranked(examples: Sequence[Example], part: int | None, label: str | None) -> list[tuple[Example, float]]:
    """Sort them all, the slow and obvious way."""
    wanted = [example for example in examples if label in (None, example.label)]
    valued = [(e, sum(e.self_influence) if part is None else e.self_influence[part]) for e in wanted]
    return sorted(valued, key=lambda pair: (-pair[1], pair[0].position or 0))


@pytest.mark.parametrize("example", [*TRAIN, *TEST], ids=lambda example: f"{example.split} {example.content}")
def test_an_example_is_found_as_it_was_written(examples: Examples, example: Example) -> None:
    assert examples.find(example.split, example.id) == example
    assert examples.preview(example.split, example.id) == preview_of(example)


@pytest.mark.parametrize(("split", "id"), [("train", "0"), ("test", "10"), ("", ""), ("train", "09"), ("train", "%")])
def test_an_unknown_example_is_refused(examples: Examples, split: str, id: str) -> None:
    for ask in (examples.find, examples.preview):
        with pytest.raises(UnknownExampleError, match="the index has no example of that split and id"):
            ask(split, id)


def test_positions_are_answered_in_their_order(examples: Examples) -> None:
    assert examples.at([2, 0, 3]) == [TRAIN[2], TRAIN[0], TRAIN[3]]
    assert examples.at([]) == []


def test_pages_follow_the_order_of_the_data_set(examples: Examples) -> None:
    pages = [examples.listing("train", start=start, count=3) for start in (0, 3, 6)]
    assert pages == [TRAIN[:3], TRAIN[3:], []]
    assert examples.listing("test", start=0, count=10) == TEST
    assert examples.listing("validation", start=0, count=10) == []


def test_self_influence_comes_highest_first_and_ties_by_position(examples: Examples) -> None:
    order = [(example.id, total) for example, total in examples.self_influence()]
    assert order == [("10", 4.25), ("9", 3.0), ("x'; --", 3.0), ("ünï", 0.5)]


@pytest.mark.parametrize("part", [None, 0, PARTS - 1])
@pytest.mark.parametrize("label", [None, *LABELS, "absent", "'; --"])
def test_self_influence_is_that_of_a_plain_sort(
    table: Examples, many: list[Example], part: int | None, label: str | None
) -> None:
    assert list(table.self_influence(part=part, label=label)) == ranked(many, part, label)


@pytest.mark.parametrize("part", [None, 1])
@pytest.mark.parametrize("label", [None, "猫"])
def test_pages_of_any_size_are_the_whole_list(
    table: Examples, many: list[Example], part: int | None, label: str | None
) -> None:
    """A page ends within a tie most of the time."""
    for size in (7, 64, 1000):
        found: list[tuple[Example, float]] = []
        while page := list(table.self_influence(part=part, label=label, after=after(found), count=size)):
            assert len(page) <= size
            found += page
        assert found == ranked(many, part, label)


def after(found: list[tuple[Example, float]]) -> tuple[float, int] | None:
    return (found[-1][1], found[-1][0].position or 0) if found else None


def test_a_total_is_rounded_once(tmp_path: Path) -> None:
    """Added to 2^53 one after the other, both ones would be lost."""
    examples = Examples([write(tmp_path / "table", [Example("train", "0", 0, 0, "", "", (2.0**53, 1.0, 1.0))])])
    [(example, total)] = examples.self_influence()
    assert total == example.total == 2.0**53 + 2


def test_floats_come_back_bit_for_bit(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 2.0**-149, float("inf"), -0.3]
    examples = [Example("train", str(i), i, i, "", "", (value,)) for i, value in enumerate(values)]
    table = Examples([write(tmp_path / "table", examples)])
    for part in (None, 0):
        assert [value for _, value in table.self_influence(part=part)] == sorted(values, reverse=True)


def test_labels_keep_the_order_of_the_data(table: Examples, many: list[Example]) -> None:
    cats = [example for example in many if example.label == "cat"]
    pages = [table.listing("train", start=start, count=50, label="cat") for start in range(0, len(cats) + 50, 50)]
    assert [example for page in pages for example in page] == cats
    assert table.listing("test", start=0, count=9, label="dog") == TEST
    assert table.listing("test", start=0, count=9, label="cat") == []


@pytest.mark.parametrize("name", ["format-1", "format-1-rank1"])
def test_the_tables_of_golden_indexes_are_listed(name: str) -> None:
    """They were written before there were totals; their values are exact in float32, so that sums have no order."""
    version = open_version(GOLDEN / name)
    examples = open_examples(version.objects, version.manifest)
    rows = examples.listing("train", start=0, count=100)
    assert len(rows) == 6 and all(len(row.self_influence) == 2 for row in rows)
    for part in (None, 0, 1):
        for label in (None, "standing", "lying"):
            assert list(examples.self_influence(part=part, label=label)) == ranked(rows, part, label)
    assert examples.part_of(2) == 1
    examples.check([entry.splits for entry in version.manifest.examples], version.manifest.vectors.rows)


def test_checkpoints_count_from_one(table: Examples) -> None:
    assert [table.part_of(checkpoint) for checkpoint in (None, 1, PARTS)] == [None, 0, PARTS - 1]
    for checkpoint in (0, -1, PARTS + 1):
        with pytest.raises(QuestionError, match="checkpoint: expected a number from 1 to 3, or none for the sum over"):
            table.part_of(checkpoint)


def test_without_self_influence_nothing_is_ranked(tmp_path: Path) -> None:
    examples = Examples([write(tmp_path / "table", [Example("train", "0", 0, 0, "", "")])])
    assert list(examples.self_influence()) == list(examples.self_influence(part=0)) == []
    for checkpoint in (None, 1):
        with pytest.raises(QuestionError, match="this index has no self-influence: its method defines none; list ex"):
            examples.part_of(checkpoint)


def test_a_label_is_one_of_the_task_s_or_of_some_example(examples: Examples) -> None:
    examples.check_label("bird", ["cat", "bird"])
    examples.check_label("猫", None)
    with pytest.raises(UnknownLabelError, match=r"unknown label; expected one of 'cat', 'bird'$"):
        examples.check_label("dog", ["cat", "bird"])
    with pytest.raises(UnknownLabelError, match="unknown label; expected one that an example of the index has"):
        examples.check_label("bird", None)


def test_self_influence_is_complete_beyond_one_fetch(tmp_path: Path) -> None:
    many = [Example("train", str(i), i, i, "", "", (float(i),)) for i in range(1201)]
    write_examples(tmp_path / "many", (ExampleRow(example, Preview("text/plain", b"")) for example in many))
    found = list(Examples([tmp_path / "many"]).self_influence())
    assert found == [(example, float(example.position or 0)) for example in reversed(many)]


def test_any_thread_may_read(examples: Examples) -> None:
    names = [(example.split, example.id) for example in (*TRAIN, *TEST)] * 20
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda name: examples.find(*name), names))
    assert [(example.split, example.id) for example in found] == names


def test_equal_rows_are_equal_bytes(path: Path, tmp_path: Path) -> None:
    write_examples(tmp_path / "again", (ExampleRow(example, preview_of(example)) for example in (*TRAIN, *TEST)))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_reading_writes_nothing(path: Path) -> None:
    before = path.read_bytes()
    examples = Examples([path])
    examples.find("train", "9")
    examples.close()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a?mode=rwc#b %20", 'it\'s "quoted"; --', "ü 猫", "%00?cache=shared"])
def test_a_path_with_special_characters_is_opened(path: Path, tmp_path: Path, name: str) -> None:
    odd = tmp_path / name / name
    odd.parent.mkdir()
    path.rename(odd)
    assert Examples([odd]).find("train", "9") == TRAIN[0]
    assert [found.name for found in odd.parent.iterdir()] == [name]


@pytest.mark.parametrize("data", [b"no table at all", b"", b"SQLite format 3\0" + bytes(2000)])
def test_a_damaged_table_is_refused(path: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "damaged").write_bytes(data)
    for paths in ([tmp_path / "damaged"], [path, tmp_path / "damaged"]):
        with pytest.raises(CorruptIndexError, match=r"the table of examples cannot be read \(.*\); verify the index"):
            Examples(paths).find("train", "9")


def test_a_version_is_opened_with_its_segments_and_tombstones(
    index_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(index_folder)
    first = open_version(folder)
    with_segment(folder, [Example("train", "new", 300, 300, "3", "", (1.0, 1.0, 1.0))])
    deleted = with_deleted(folder, [0, 299])
    examples = open_examples(deleted.objects, deleted.manifest)
    assert examples.find("train", "new").position == 300
    assert examples.next_row("train") == 301
    assert len(examples.listing("train", start=0, count=400)) == deleted.manifest.rows == 299
    examples.check([entry.splits for entry in deleted.manifest.examples], deleted.manifest.vectors.rows)
    assert len(open_examples(first.objects, first.manifest).listing("train", start=0, count=400)) == 300


def test_a_version_whose_segment_is_cut_off_is_not_opened(index_folder: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(index_folder)
    version = with_segment(folder, [Example("train", "new", 300, 300, "3", "", (1.0, 1.0, 1.0))])
    path = version.objects.path(version.manifest.examples[1].object)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptIndexError, match=f"^examples, segment 2: {path} has"):
        open_examples(version.objects, version.manifest)
