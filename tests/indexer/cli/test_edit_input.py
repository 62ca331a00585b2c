"""Rows, ids and labels as people write them; what is not of the form is refused with the form."""

from pathlib import Path

import pytest

from indexer.cli.edit_input import ids_of, labels_of, parse_rows, read_ids
from indexer.errors import BuildError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "given.csv"


def test_rows_are_numbers_and_ranges() -> None:
    assert parse_rows("10-12,31", 32) == [10, 11, 12, 31]
    assert parse_rows(" 7 , 0-0, 6-7", 8) == [0, 6, 7]


@pytest.mark.parametrize("option", ["", "3,", "5-3", "-3", "3-", "1-2-3", "a", "1.5", "²"])
def test_other_rows_are_refused(option: str) -> None:
    with pytest.raises(BuildError, match="expected whole numbers and ranges, as in '10-20,31'") as exc:
        parse_rows(option, 10)
    assert str(exc.value).startswith(f"--rows {option!r}")


@pytest.mark.parametrize("last", ["10", "9999999999", "9" * 5000])
def test_rows_that_there_are_not_are_refused_before_they_are_counted_out(last: str) -> None:
    with pytest.raises(BuildError, match=f"expected rows from 0 to 9 of task.train, found {last}$"):
        parse_rows(f"0-{last}", 10)


def test_ids_are_an_option_or_a_file(file: Path) -> None:
    file.write_text("17\n\n 204 \n")
    assert ids_of("17, 204", None) == ids_of(None, file) == ["17", "204"]
    for option, place in ((None, None), ("17", file)):
        with pytest.raises(BuildError, match="name the training examples with --ids '17,204', or with --file"):
            ids_of(option, place)


def test_a_ranking_serves_as_a_file_of_ids(file: Path) -> None:
    file.write_text('rank,split,id,label,self_influence\r\n1,train,204,"a,b",0.5\r\n2,train,17,"c\nd",0.25\r\n')
    assert read_ids(file) == ["204", "17"]


def test_a_file_may_begin_with_a_byte_order_mark(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfid\r\n17\r\n")
    assert read_ids(file) == ["17"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("17\n204,3\n", r"row 2: expected one id, found 2 cells; of a CSV file the first line names the columns"),
        ("id,split\n17,test\n", r"row 2: test/17 is no training example; only those are edited"),
        ("id,label\n17\n", r"row 2: expected 2 cells, found 1"),
    ],
)
def test_files_of_another_form_are_refused_at_their_row(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(BuildError, match=message):
        read_ids(file)


@pytest.mark.parametrize("data", [None, b"\xff\xfe\x00"])
def test_files_that_are_no_text_are_refused(file: Path, data: bytes | None) -> None:
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(BuildError, match=r"--file '.*given\.csv' cannot be read"):
        read_ids(file)


def test_labels_are_options_and_a_file_together(file: Path) -> None:
    file.write_text('label,id\n5,17\n"a,b",3\n')
    assert labels_of(["204=3", "1=a=b", "17=5"], file) == {"204": "3", "1": "a=b", "17": "5", "3": "a,b"}


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        ([], None, r"name new labels with --label 17=5, which may be repeated, or with --file labels\.csv"),
        (["17"], None, r"--label '17': expected an id and its new label, as in '17=5'"),
        (["17=5"], "id,label\n17,6\n", r"id '17' is given two labels, '5' and '6'; expected one"),
        ([], "17,6\n", r"expected the columns id, label in its first line, found \['17', '6'\]"),
        ([], "", r"expected the columns id, label in its first line, found \[\]"),
    ],
)
def test_labels_of_another_form_are_refused(file: Path, options: list[str], text: str | None, message: str) -> None:
    file.write_text(text or "")
    with pytest.raises(BuildError, match=message):
        labels_of(options, None if text is None else file)
