"""All versions of an index: parents first, and one that cannot be read hinders no other."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.errors import CorruptIndexError, UnknownIndexError
from indexer.index.versions import (
    activate,
    open_version,
    version_named,
    version_names,
    versions_of,
)
from tests.edited import with_deleted


@pytest.fixture
def copy(index_folder: Path, copy_of: Callable[[Path], Path]) -> Path:
    return copy_of(index_folder)


def test_versions_come_parents_first(copy: Path) -> None:
    """Whatever their names are, and whenever their files were copied."""
    chain = [open_version(copy), *(with_deleted(copy, list(range(count))) for count in range(1, 5))]
    assert versions_of(copy) == chain
    for age, version in enumerate(chain):
        path = copy / "versions" / version.version / "manifest.json"
        os.utime(path, (1e9 - age, 1e9 - age))
    assert versions_of(copy) == chain


def test_versions_of_one_parent_come_as_they_were_written(copy: Path) -> None:
    first = open_version(copy)
    children = [with_deleted(copy, [row], activate=False) for row in range(4)]
    for age, version in enumerate(children):
        os.utime(copy / "versions" / version.version / "manifest.json", (1e9 - age, 1e9 - age))
    assert versions_of(copy) == [first, *children[::-1]]


def test_a_version_that_cannot_be_read_hinders_no_other(copy: Path) -> None:
    first = open_version(copy)
    broken = with_deleted(copy, [0], activate=False)
    third = with_deleted(copy, [1], activate=False)
    path = copy / "versions" / broken.version / "manifest.json"
    path.write_bytes(path.read_bytes()[:-1])
    assert versions_of(copy) == [first, third]
    assert version_names(copy) == sorted(version.version for version in (first, broken, third))
    assert open_version(copy) == first
    for ask in (open_version, activate):
        with pytest.raises(CorruptIndexError, match=f"the bytes of {path} have changed since it was built"):
            ask(copy, broken.version)


def test_a_folder_without_a_manifest_is_no_version(copy: Path) -> None:
    """A writer was killed before its commit."""
    first = open_version(copy)
    (copy / "versions" / ("0" * 16)).mkdir()
    (copy / "versions" / ("0" * 16) / ".new-x").touch()
    assert version_names(copy) == [first.version]
    assert versions_of(copy) == [first]


def test_an_empty_folder_has_no_versions(tmp_path: Path) -> None:
    assert versions_of(tmp_path) == []
    assert version_names(tmp_path) == []
    for ask in (activate, version_named, open_version):
        with pytest.raises(UnknownIndexError, match="holds no finished index; build one with `proponent build`"):
            ask(tmp_path / "none", "abcd")
    assert list(tmp_path.iterdir()) == []
