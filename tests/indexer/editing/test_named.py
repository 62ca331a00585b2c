"""Ids: each once, all of living training examples, or refused by their names."""

from contextlib import closing
from pathlib import Path

import pytest

from indexer import delete
from indexer.editing.edit import deleted_rows, verified_examples
from indexer.editing.named import listed, named, once, without
from indexer.errors import BuildError, UnknownExampleError
from indexer.index.versions import open_version


def test_examples_come_by_position(folder: Path) -> None:
    with closing(verified_examples(open_version(folder))) as examples:
        assert [(e.split, e.id, e.position) for e in named(examples, ["7", "0", "3"])] == [
            ("train", "0", 0),
            ("train", "3", 3),
            ("train", "7", 7),
        ]


def test_ids_that_nothing_has_are_named_in_the_order_they_were_given(folder: Path) -> None:
    delete(folder, ["3"])
    with closing(verified_examples(open_version(folder))) as examples, pytest.raises(UnknownExampleError) as exc:
        named(examples, ["12", "0", "3", "-1", "00"])
    assert str(exc.value) == (
        "4 of 5 ids are of no training example of the index, or of a deleted one: '12', '3', '-1', '00'; "
        "nothing was changed"
    )


def test_only_the_first_of_many_are_shown() -> None:
    assert listed([str(number) for number in range(1000)]) == "'0', '1', '2', '3', '4', …"


def test_an_id_counts_once() -> None:
    assert once(["2", "1", "2"], "delete") == ["2", "1"]
    assert once({"2": "star"}, "relabel") == ["2"]


@pytest.mark.parametrize("ids", [[], (), "17"])
def test_no_ids_and_a_single_text_are_refused(ids: list[str] | str) -> None:
    """A text is a sequence of texts as well: '17' would be the examples 1 and 7."""
    with pytest.raises(BuildError, match=r"delete: expected ids of training examples, such as \['17', '204'\], found"):
        once(ids, "delete")


def test_tombstones_add_up(folder: Path) -> None:
    version = delete(folder, ["3", "7"])
    with closing(verified_examples(version)) as examples:
        assert [e.id for e in examples.listing("train", start=0, count=99)] == [*"012", *"456", *"89", "10", "11"]
    again = without(version.objects, deleted_rows(version), [11, 0])
    assert again.rows == 4
