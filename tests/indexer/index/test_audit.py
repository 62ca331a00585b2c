"""The audit: every fault is found, with what the file is and of which versions, and each file is hashed once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.errors import UnknownIndexError, UnknownVersionError
from indexer.index.audit import Audit, Checked, audit
from indexer.index.versions import IndexVersion, open_version
from tests.edited import with_deleted


def flip(path: Path) -> None:
    """Change one bit in the middle of a file; its size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def nothing(done: int) -> None:
    """Who does not look at the progress."""


def faults(found: Audit) -> dict[str, str]:
    """Return what is wrong, by role."""
    checked = [*found.seen, *found.check(nothing)]
    return {one.role: one.fault for one in checked if one.fault is not None}


@pytest.fixture
def versions(index_folder: Path, copy_of: Callable[[Path], Path]) -> list[IndexVersion]:
    folder = copy_of(index_folder)
    return [open_version(folder), with_deleted(folder, [1])]


def test_a_whole_index_has_no_faults_and_every_file_is_looked_at_once(versions: list[IndexVersion]) -> None:
    folder = versions[0].folder
    found = audit(folder)
    checked = [*found.seen, *found.check(nothing)]
    assert [one.fault for one in checked] == [None] * len(checked)
    outside = {folder / "lock", folder / "log.jsonl"}
    assert sorted(one.path for one in checked) == sorted(
        path for path in folder.rglob("*") if path.is_file() and path not in outside
    )
    assert found.unreferenced == ()
    assert found.versions == tuple(sorted(version.version for version in versions))
    assert all(one.bytes == one.path.stat().st_size for one in checked)


def test_roles_name_their_versions(versions: list[IndexVersion]) -> None:
    both = ", ".join(sorted(version.version for version in versions))
    roles = {one.role for one in audit(versions[0].folder).check(nothing)}
    assert f"tombstones of {versions[1].version}" in roles
    assert f"examples of {both}" in roles
    assert len(roles) == len(versions[0].manifest.objects()) + 1


def test_progress_adds_up_to_all_bytes(versions: list[IndexVersion]) -> None:
    found = audit(versions[0].folder)
    versions[0].objects.path(versions[0].manifest.probe.object).unlink()
    done: list[int] = []
    for _ in found.check(done.append):
        pass
    assert sum(done) == found.bytes == sum({ref.sha256: ref.bytes for ref in found.roles}.values())


def test_every_fault_is_found_at_once(versions: list[IndexVersion]) -> None:
    first, second = versions
    folder, manifest = first.folder, first.manifest
    assert second.manifest.vectors.deleted is not None
    cut_off = first.objects.path(manifest.vectors.shards[0].object)
    size = cut_off.stat().st_size
    cut_off.write_bytes(cut_off.read_bytes()[:-4])
    flip(first.objects.path(manifest.examples[0].object))
    first.objects.path(second.manifest.vectors.deleted.object).unlink()
    both = ", ".join(audit(folder).versions)
    assert faults(audit(folder)) == {
        f"vectors, shard 1 of {both}": f"has {size - 4:,} bytes; the manifest says {size:,}",
        f"examples of {both}": "has changed",
        f"tombstones of {second.version}": "is missing",
    }


@pytest.mark.parametrize("number", range(7))
def test_a_flipped_bit_in_any_file_is_found(versions: list[IndexVersion], number: int) -> None:
    found = audit(versions[0].folder)
    paths = [versions[0].objects.path(ref) for ref in found.roles]
    assert number < len(paths)
    flip(paths[number])
    [fault] = [one for one in audit(versions[0].folder).check(nothing) if one.fault is not None]
    assert (fault.path, fault.fault) == (paths[number], "has changed")


def test_a_changed_manifest_is_found_and_hinders_no_other(versions: list[IndexVersion]) -> None:
    first, second = versions
    path = first.folder / "versions" / second.version / "manifest.json"
    flip(path)
    found = audit(first.folder)
    [(role, fault)] = faults(found).items()
    assert role == f"manifest of {second.version}"
    assert fault.startswith(f"the bytes of {path} have changed")
    assert len(found.roles) == len(first.manifest.objects())
    assert second.manifest.vectors.deleted is not None
    assert found.unreferenced == (first.objects.path(second.manifest.vectors.deleted.object),)


def test_a_missing_manifest_of_the_active_version_is_found(versions: list[IndexVersion]) -> None:
    first, second = versions
    path = first.folder / "versions" / second.version / "manifest.json"
    path.unlink()
    assert faults(audit(first.folder)) == {
        f"manifest of {second.version}": f"{path} is missing; restore it from a copy, or rebuild"
    }


def test_a_manifest_that_another_version_was_made_from_is_missed(versions: list[IndexVersion]) -> None:
    first = versions[0]
    path = first.folder / "versions" / first.version / "manifest.json"
    path.unlink()
    [(role, fault)] = faults(audit(first.folder)).items()
    assert role == f"manifest of {first.version}" and fault.startswith(f"{path} is missing; restore it from a copy")
    path.parent.rmdir()  # as pruning does
    assert faults(audit(first.folder)) == {}


def test_a_folder_of_no_version_is_spare(versions: list[IndexVersion]) -> None:
    folder = versions[0].folder
    (folder / "versions" / ("0" * 16)).mkdir()
    (folder / "versions" / "mine").mkdir()
    found = audit(folder)
    assert (faults(found), found.unreferenced) == ({}, (folder / "versions" / ("0" * 16),))


@pytest.mark.parametrize("more", ["", " \n", "\n\n"])
def test_an_active_file_that_is_read_all_the_same_has_changed(versions: list[IndexVersion], more: str) -> None:
    active = versions[1].version
    (versions[0].folder / "active").write_text(f"{active}{more}")
    assert faults(audit(versions[0].folder)) == {"active": f"has changed; expected {active!r} and a line's end"}


@pytest.mark.parametrize("data", [b"0123456789abcdef\n", b"", b"\xff"])
def test_an_active_version_that_is_none_is_found(versions: list[IndexVersion], data: bytes) -> None:
    (versions[0].folder / "active").write_bytes(data)
    found = audit(versions[0].folder)
    assert found.seen[0].path.name == "active"
    assert "which does not exist; expected one of" in (found.seen[0].fault or "")
    assert len(list(found.check(nothing))) == len(found.roles) > 0


def test_one_version_alone_is_looked_at(versions: list[IndexVersion]) -> None:
    first, second = versions
    assert second.manifest.vectors.deleted is not None
    first.objects.path(second.manifest.vectors.deleted.object).unlink()
    (first.folder / "active").write_bytes(b"none")
    (first.folder / "objects" / ("0" * 64)).touch()
    found = audit(first.folder, first.version[:6])
    assert found.versions == (first.version,)
    path = first.folder / "versions" / first.version / "manifest.json"
    assert found.seen == (Checked(path, f"manifest of {first.version}", path.stat().st_size),)
    assert (faults(found), found.unreferenced) == ({}, ())
    assert list(faults(audit(first.folder, second.version))) == [f"tombstones of {second.version}"]


def test_what_no_version_names_is_listed(versions: list[IndexVersion]) -> None:
    folder = versions[0].folder
    for name in ("0" * 64, ".new-left", "notes.txt"):
        (folder / "objects" / name).touch()
    assert audit(folder).unreferenced == (folder / "objects" / ".new-left", folder / "objects" / ("0" * 64))


def test_what_is_not_there_is_not_audited(tmp_path: Path, versions: list[IndexVersion]) -> None:
    with pytest.raises(UnknownIndexError, match="holds no finished index; build one with `proponent build`"):
        audit(tmp_path / "none")
    with pytest.raises(UnknownVersionError, match="has no version 'ffff'"):
        audit(versions[0].folder, "ffff")
