"""The table of examples: found by name and by position, listed in order, read from any thread, refused when damaged."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexer.codecs import Preview
from indexer.errors import CorruptIndexError, UnknownExampleError
from indexer.index.examples import Example, ExampleRow, Examples, write_examples

TRAIN = [
    Example("train", "9", 0, 0, "cat", "a0", (1.0, 2.0)),
    Example("train", "10", 1, 1, "dog", "a1", (4.0, 0.25)),
    Example("train", "x'; --", 2, 2, "", "a2", (2.0, 1.0)),
    Example("train", "ünï", 3, 3, "猫", "a3", (0.0, 0.5)),
]
TEST = [Example("test", "9", 0, None, "dog", "b0"), Example("test", "0", 1, None, "dog", "b1")]


def preview_of(example: Example) -> Preview:
    return Preview("image/png", f"{example.split} {example.id}\0".encode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_examples(tmp_path / "table", (ExampleRow(example, preview_of(example)) for example in (*TRAIN, *TEST)))
    return tmp_path / "table"


@pytest.fixture
def examples(path: Path) -> Examples:
    return Examples(path)


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


def test_self_influence_is_complete_beyond_one_fetch(tmp_path: Path) -> None:
    many = [Example("train", str(i), i, i, "", "", (float(i),)) for i in range(1201)]
    write_examples(tmp_path / "many", (ExampleRow(example, Preview("text/plain", b"")) for example in many))
    found = list(Examples(tmp_path / "many").self_influence())
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
    examples = Examples(path)
    examples.find("train", "9")
    examples.close()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_path_with_special_characters_is_opened(path: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a?mode=rwc#b %20"
    path.rename(odd)
    assert Examples(odd).find("train", "9") == TRAIN[0]


@pytest.mark.parametrize("data", [b"no table at all", b"", b"SQLite format 3\0" + bytes(2000)])
def test_a_damaged_table_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "table").write_bytes(data)
    with pytest.raises(CorruptIndexError, match=r"the table of examples cannot be read \(.*\); verify the index"):
        Examples(tmp_path / "table").find("train", "9")
