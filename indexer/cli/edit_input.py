"""What people write to name training examples: rows, ids and labels, in options and in files."""

import csv
from collections.abc import Sequence
from pathlib import Path

from indexer.errors import BuildError

_DIGITS = 18


def parse_rows(option: str, total: int) -> list[int]:
    """Return the rows that an option such as ``10-20,31`` names, both ends of a range included.

    total: how many rows there are; ends are compared with it before a range is written out.

    >>> parse_rows("3-5,9", total=10)
    [3, 4, 5, 9]

    Raises:
        BuildError: the option is not of that form, or names a row that there is not.
    """
    rows: set[int] = set()
    for part in option.split(","):
        first, dash, last = (text.strip() for text in part.partition("-"))
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdigit() for end in ends) or _number(ends[0]) > _number(ends[1]):
            raise BuildError(f"--rows {option!r}: expected whole numbers and ranges, as in '10-20,31'")
        if _number(ends[1]) >= total:
            raise BuildError(f"--rows {option!r}: expected rows from 0 to {total - 1} of task.train, found {ends[1]}")
        rows.update(range(_number(ends[0]), _number(ends[1]) + 1))
    return sorted(rows)


def _number(digits: str) -> int:
    """Return a number; of more digits than any row has, only that it is larger than all."""
    return int(digits.lstrip("0")[:_DIGITS] or "0")


def ids_of(option: str | None, file: Path | None) -> list[str]:
    """Return the ids of an option such as ``17,204``, or of a file.

    Raises:
        BuildError: neither or both are given, or the file names no ids.
    """
    if (option is None) == (file is None):
        raise BuildError("name the training examples with --ids '17,204', or with --file, one id a line")
    return [id.strip() for id in option.split(",")] if option is not None else read_ids(Path(file or ""))


def read_ids(file: Path) -> list[str]:
    """Read the ids of a file: one a line, or the column ``id`` of a CSV file such as `proponent mislabeled` writes.

    Raises:
        BuildError: the file cannot be read, or names an example that is not of the split train.
    """
    rows = _read(file)
    if rows and "id" in rows[0]:
        return [row["id"] for row in _columns(file, rows, ("id",))]
    wide = next((number for number, row in enumerate(rows, 1) if len(row) != 1), None)
    if wide is not None:
        raise BuildError(
            f"{file}, row {wide}: expected one id, found {len(rows[wide - 1])} cells; of a CSV file the first line "
            "names the columns, and one of them 'id'"
        )
    return [row[0].strip() for row in rows]


def labels_of(options: Sequence[str], file: Path | None) -> dict[str, str]:
    """Return the new labels by id, of options such as ``17=5`` and of a CSV file with the columns id and label.

    Raises:
        BuildError: none is given, an option or the file is not of that form, or an id has two labels.
    """
    pairs = [tuple(option.split("=", 1)) for option in options]
    wrong = next((option for option, pair in zip(options, pairs, strict=True) if len(pair) != 2), None)
    if wrong is not None:
        raise BuildError(f"--label {wrong!r}: expected an id and its new label, as in '17=5'")
    if file is not None:
        pairs += [(row["id"], row["label"]) for row in _columns(file, _read(file), ("id", "label"))]
    if not pairs:
        raise BuildError("name new labels with --label 17=5, which may be repeated, or with --file labels.csv")
    labels: dict[str, str] = {}
    for id, label in pairs:
        if labels.setdefault(id, label) != label:
            raise BuildError(f"id {id!r} is given two labels, {labels[id]!r} and {label!r}; expected one")
    return labels


def _read(file: Path) -> list[list[str]]:
    """Return the cells of the lines that are not empty.

    Raises:
        BuildError: the file cannot be read as text.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            return [row for row in csv.reader(text) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise BuildError(f"--file {str(file)!r} cannot be read: {exc}") from exc


def _columns(file: Path, rows: Sequence[Sequence[str]], needed: Sequence[str]) -> list[dict[str, str]]:
    header = rows[0] if rows else []
    missing = [name for name in needed if name not in header]
    if missing:
        raise BuildError(f"{file}: expected the columns {', '.join(needed)} in its first line, found {list(header)}")
    found = []
    for number, cells in enumerate(rows[1:], 2):
        if len(cells) != len(header):
            raise BuildError(f"{file}, row {number}: expected {len(header)} cells, found {len(cells)}")
        row = dict(zip(header, cells, strict=True))
        if row.get("split", "train") != "train":
            raise BuildError(
                f"{file}, row {number}: {row['split']}/{row['id']} is no training example; only those are edited"
            )
        found.append(row)
    return found
