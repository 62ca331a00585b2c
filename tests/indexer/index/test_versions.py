"""Versions: a manifest that proves itself, the active one, and refusals that name the file."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from indexer.errors import BuildError, CorruptIndexError, UnknownIndexError
from indexer.index.versions import commit, is_index, open_version, refuse_existing


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


def test_a_file_is_no_place_for_an_index(tmp_path: Path) -> None:
    (tmp_path / "index").touch()
    with pytest.raises(BuildError, match="index' is a file; expected a folder to build the index in"):
        refuse_existing(tmp_path / "index")


@pytest.mark.parametrize("version", ["0" * 16, "", "..", "../objects", "\xff"])
def test_an_active_version_that_does_not_exist_is_refused(copy: Path, version: str) -> None:
    known = open_version(copy).version
    (copy / "active").write_bytes(version.encode("latin-1"))
    with pytest.raises(CorruptIndexError, match=rf"active names version .*, which does not exist; .* \['{known}'\]"):
        open_version(copy)


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
