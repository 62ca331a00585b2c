"""Versions: a manifest that proves itself, the active one, and refusals that name the file."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from indexer.errors import BuildError, CorruptIndexError, DiskFullError, UnknownIndexError, UnknownVersionError
from indexer.index.lock import writing_in
from indexer.index.versions import (
    activate,
    commit,
    is_index,
    is_version_name,
    open_version,
    refuse_existing,
    version_named,
)
from tests.crashes import Stops, full
from tests.edited import with_deleted


def replaced_manifest(folder: Path, data: bytes) -> Path:
    """Put other bytes in the manifest's place under their right hash, as a hostile author would."""
    version = hashlib.sha256(data).hexdigest()[:16]
    path = folder / "versions" / version / "manifest.json"
    path.parent.mkdir()
    path.write_bytes(data)
    (folder / "active").write_text(f"{version}\n")
    return path


def manifest_document(folder: Path) -> dict[str, object]:
    found: dict[str, object] = open_version(folder).manifest.model_dump(mode="json")
    return found


@pytest.fixture
def copy(index_folder: Path, copy_of: Callable[[Path], Path]) -> Path:
    return copy_of(index_folder)


def test_a_version_is_named_by_its_manifest(index_folder: Path) -> None:
    opened = open_version(index_folder)
    data = (index_folder / "versions" / opened.version / "manifest.json").read_bytes()
    assert opened.fingerprint == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert opened.version == hashlib.sha256(data).hexdigest()[:16]
    assert (index_folder / "active").read_text() == f"{opened.version}\n"
    assert opened.name == "tiny"
    assert data.endswith(b"}\n")


def test_a_committed_version_is_the_active_one(copy: Path) -> None:
    before = open_version(copy)
    manifest = before.manifest.model_copy(update={"plan": before.manifest.plan.model_copy(update={"batch_size": 7})})
    committed = commit(copy, manifest)
    assert committed.version != before.version
    assert open_version(copy) == committed
    assert commit(copy, before.manifest) == before


def test_verifying_names_every_object(index_folder: Path) -> None:
    opened = open_version(index_folder)
    assert dict(opened.verify()) == opened.manifest.objects()
    opened.check_sizes()


def test_an_unfinished_build_is_no_index(copy: Path) -> None:
    (copy / "active").unlink()
    shutil.rmtree(copy / "versions")
    assert not is_index(copy)
    refuse_existing(copy)
    with pytest.raises(UnknownIndexError, match="tiny' holds no finished index; its build did not finish; build again"):
        open_version(copy)


def test_an_empty_folder_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(UnknownIndexError, match="holds no finished index; build one with `proponent build`"):
        open_version(tmp_path)


def test_a_finished_index_is_never_built_over(index_folder: Path) -> None:
    assert is_index(index_folder)
    with pytest.raises(BuildError, match="tiny' already holds an index; build into another folder, or remove this one"):
        refuse_existing(index_folder)


def test_versions_of_which_none_is_active_are_not_built_over(copy: Path) -> None:
    known = open_version(copy).version
    (copy / "active").unlink()
    with pytest.raises(BuildError) as exc:
        refuse_existing(copy)
    assert str(exc.value) == (
        f"{str(copy)!r} holds versions of an index, none of them active; make a version the active one with `proponent "
        f"versions activate`: ['{known}']; or build into another folder, or remove this one first"
    )


def test_a_full_disk_leaves_the_active_version(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_version(copy)
    second = with_deleted(copy, [0])
    with monkeypatch.context() as patch:
        Stops(1, full).install(patch)
        with pytest.raises(DiskFullError, match=r"is full .*; nothing was changed: make room, and do it again"):
            activate(copy, first.version)
    assert open_version(copy) == second


def test_a_file_is_no_place_for_an_index(tmp_path: Path) -> None:
    (tmp_path / "index").touch()
    with pytest.raises(BuildError, match="index' is a file; expected a folder to build the index in"):
        refuse_existing(tmp_path / "index")


@pytest.mark.parametrize("version", ["0" * 16, "", "..", "../objects", "\xff"])
def test_an_active_version_that_does_not_exist_is_refused(copy: Path, version: str) -> None:
    known = open_version(copy).version
    (copy / "active").write_bytes(version.encode("latin-1"))
    expected = (
        rf"active names version .*, which does not exist; .* \['{known}'\]: make one the active one with `propone"
    )
    with pytest.raises(CorruptIndexError, match=expected):
        open_version(copy)
    activate(copy, known)
    assert open_version(copy).version == known


def test_a_version_under_anothers_name_is_refused(copy: Path) -> None:
    version = open_version(copy).version
    shutil.copytree(copy / "versions" / version, copy / "versions" / ("0" * 16))
    (copy / "active").write_text("0" * 16)
    with pytest.raises(CorruptIndexError, match=r"0000/manifest\.json have changed since it was built; restore it"):
        open_version(copy)


def test_another_format_is_refused_by_its_number(copy: Path) -> None:
    path = replaced_manifest(copy, orjson.dumps(manifest_document(copy) | {"format": 2}))
    with pytest.raises(CorruptIndexError) as exc:
        open_version(copy)
    assert str(exc.value) == (
        f"{path} is of format 2; this version of Proponent reads format 1: use the version that built it"
    )


def test_a_manifest_of_another_shape_is_refused_at_its_place(copy: Path) -> None:
    path = replaced_manifest(copy, orjson.dumps(manifest_document(copy) | {"checkpoints": []}))
    with pytest.raises(CorruptIndexError) as exc:
        open_version(copy)
    assert str(exc.value).startswith(f"{path}: checkpoints: List should have at least 1 item")


@pytest.mark.parametrize("data", [b"", b"not JSON", b"[]", b"null", b'"format"'])
def test_a_manifest_that_is_no_object_is_refused(copy: Path, data: bytes) -> None:
    path = replaced_manifest(copy, data)
    with pytest.raises(CorruptIndexError) as exc:
        open_version(copy)
    assert str(path) in str(exc.value)


def test_a_version_that_is_not_active_is_opened_by_its_name(copy: Path) -> None:
    first = open_version(copy)
    second = with_deleted(copy, [0])
    assert open_version(copy) == open_version(copy, second.version) == second
    assert open_version(copy, first.version) == open_version(copy, first.version[:4]) == first


def test_a_version_is_committed_without_being_served(copy: Path) -> None:
    first = open_version(copy)
    second = with_deleted(copy, [0], activate=False)
    assert open_version(copy) == first
    assert open_version(copy, second.version) == second


@pytest.mark.parametrize("given", ["", "0", "zzzz", "0" * 16, "..", "../versions", "*", "A" * 16])
def test_a_version_that_does_not_exist_is_refused_with_those_that_do(copy: Path, given: str) -> None:
    known = open_version(copy).version
    for ask in (open_version, activate, version_named):
        with pytest.raises(UnknownVersionError) as exc:
            ask(copy, given)
        assert str(exc.value) == (
            f"{str(copy)!r} has no version {given!r}; expected one of ['{known}'], or its first digits, at least 4"
        )


def test_fewer_than_four_digits_name_no_version(copy: Path) -> None:
    known = open_version(copy).version
    assert version_named(copy, known[:4]) == known
    with pytest.raises(UnknownVersionError, match=f"has no version '{known[:3]}'; expected one of"):
        version_named(copy, known[:3])


def test_digits_of_two_versions_name_neither(copy: Path) -> None:
    known = open_version(copy).version
    other = known[:8] + "0" * 8
    shutil.copytree(copy / "versions" / known, copy / "versions" / other)
    with pytest.raises(UnknownVersionError, match=f"has several versions '{known[:8]}'; expected one of"):
        version_named(copy, known[:8])
    assert version_named(copy, known[:9]) == known


def test_a_version_is_made_active_and_back(copy: Path) -> None:
    first = open_version(copy)
    second = with_deleted(copy, [0])
    assert activate(copy, first.version[:6]) == first == open_version(copy)
    assert (copy / "active").read_bytes() == f"{first.version}\n".encode()
    assert activate(copy, second.version) == second == open_version(copy)


def test_a_version_with_a_file_missing_is_not_made_active(copy: Path) -> None:
    first = open_version(copy)
    second = with_deleted(copy, [0], activate=False)
    assert second.manifest.vectors.deleted is not None
    path = second.objects.path(second.manifest.vectors.deleted.object)
    path.unlink()
    with pytest.raises(CorruptIndexError, match=f"tombstones: {path} is missing"):
        activate(copy, second.version)
    assert open_version(copy) == first


def test_no_version_is_made_active_while_another_process_writes(copy: Path) -> None:
    first = open_version(copy)
    with writing_in(copy), pytest.raises(BuildError, match="is at work in"):
        activate(copy, first.version)


def test_a_build_that_can_be_resumed_says_so(copy: Path) -> None:
    (copy / "active").unlink()
    (copy / "building").mkdir()
    for finished in (True, False):
        with pytest.raises(
            UnknownIndexError, match="its build did not finish: the same `proponent build` command resum"
        ):
            open_version(copy)
        if finished:
            shutil.rmtree(copy / "versions")


def test_an_index_without_an_active_version_names_those_there_are(copy: Path) -> None:
    known = open_version(copy).version
    (copy / "active").unlink()
    expected = rf"finished index; make a version the active one with `proponent versions activate`: \['{known}'\]"
    with pytest.raises(UnknownIndexError, match=expected):
        open_version(copy)
    activate(copy, known)
    assert open_version(copy).version == known


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0123456789abcdef", True),
        ("0123456789ABCDEF", False),
        ("0" * 15, False),
        ("0" * 17, False),
        (".new-0123456789", False),
    ],
)
def test_versions_are_named_by_sixteen_digits(name: str, expected: bool) -> None:
    assert is_version_name(name) == expected
