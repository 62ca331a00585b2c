"""Files named by their hash, and writes that a reader sees in full or not at all."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from indexer.errors import CorruptIndexError
from indexer.index.objects import ObjectRef, Objects

DATA = b"eleven byte"


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "objects")


@given(st.binary(max_size=200))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_an_object_is_named_by_its_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    objects = Objects(tmp_path_factory.mktemp("objects"))
    ref = objects.add(data)
    assert ref == ObjectRef(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    assert objects.path(ref) == objects.folder / ref.sha256
    assert objects.read(ref, "data") == data


def test_equal_bytes_are_one_file(objects: Objects) -> None:
    assert objects.add(DATA) == objects.add(DATA)
    assert len(list(objects.folder.iterdir())) == 1


def test_others_may_read_what_was_written(objects: Objects) -> None:
    assert objects.path(objects.add(DATA)).stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_nothing(objects: Objects) -> None:
    with pytest.raises(RuntimeError, match="the disk is full"), objects.writing() as (file, done):
        file.write(DATA)
        raise RuntimeError("the disk is full")
    assert done == []
    assert list(objects.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.unlink(), "vectors, shard 1: {path} is missing; restore it from a copy, or rebuild with"),
        (lambda path: path.write_bytes(DATA[:-1]), "vectors, shard 1: {path} has 10 bytes; the manifest says 11"),
        (lambda path: path.write_bytes(DATA + b"s"), "vectors, shard 1: {path} has 12 bytes; the manifest says 11"),
    ],
    ids=["missing", "truncated", "oversized"],
)
def test_the_size_is_checked_at_every_read(objects: Objects, damage: Callable[[Path], None], expected: str) -> None:
    ref = objects.add(DATA)
    damage(objects.path(ref))
    for check in (objects.read, objects.check_size, objects.check_hash):
        with pytest.raises(CorruptIndexError) as exc:
            check(ref, "vectors, shard 1")
        assert str(exc.value).startswith(expected.format(path=objects.path(ref)))


@pytest.mark.parametrize("place", range(len(DATA)))
def test_any_changed_byte_is_found_by_the_hash(objects: Objects, place: int) -> None:
    ref = objects.add(DATA)
    objects.check_hash(ref, "examples")
    changed = bytearray(DATA)
    changed[place] ^= 1
    objects.path(ref).write_bytes(changed)
    objects.check_size(ref, "examples")
    with pytest.raises(CorruptIndexError, match=f"examples: the bytes of .*{ref.sha256} have changed since it was bui"):
        objects.check_hash(ref, "examples")


@pytest.mark.parametrize("name", ["", "../active", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n"])
def test_a_name_that_is_no_hash_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        ObjectRef(sha256=name, bytes=0)


def test_what_nothing_names_is_found(objects: Objects) -> None:
    """Objects, and what killed writers left; what is not ours stays out of it."""
    assert objects.unnamed(set()) == []
    named, other = objects.add(DATA), objects.add(b"other")
    (objects.folder / ".new-file").touch()
    (objects.folder / ".new-folder").mkdir()
    (objects.folder / "notes.txt").touch()
    left = [objects.folder / ".new-file", objects.folder / ".new-folder"]
    assert objects.unnamed({named.sha256}) == [*left, objects.path(other)]
    assert objects.unnamed({named.sha256, other.sha256}) == left
