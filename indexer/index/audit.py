"""An audit of an index: every file of every version, hashed in full; what is wrong is found out, not stumbled over.

Objects that versions share are hashed once. A manifest that cannot be read hinders none of the others; what only it
names is then unreferenced, as far as anyone can say.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import CorruptIndexError
from indexer.index.objects import ObjectRef, Objects
from indexer.index.versions import (
    active_version,
    is_version_name,
    manifest_path,
    read_version,
    version_named,
    version_names,
)

_BLOCK = 2**22

OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Checked:
    """One file; role: what it is, of which versions; fault: what is wrong, None where it is as it was written."""

    path: Path
    role: str
    bytes: int
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """What is there to be hashed, and what was seen on the way: manifests and the file that names the active version.

    roles: what every object is, by version. unreferenced: files and folders that no manifest names, which
    `prune` removes.
    """

    objects: Objects
    versions: tuple[str, ...]
    seen: tuple[Checked, ...]
    roles: dict[ObjectRef, dict[str, str]]
    unreferenced: tuple[Path, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes to be hashed."""
        return sum(ref.bytes for ref in self.roles)

    def check(self, on_bytes: OnBytes) -> Iterator[Checked]:
        """Hash object by object; on_bytes is told of all bytes, a block after the other."""
        for ref, roles in self.roles.items():
            path = self.objects.path(ref)
            yield Checked(path, _words(roles), ref.bytes, _fault(path, ref, on_bytes))


def audit(folder: Path, version: str | None = None) -> Audit:
    """Read the manifests of an index, or that of one version alone.

    Raises:
        UnknownIndexError: the folder holds no finished index.
        UnknownVersionError: it has no such version.
    """
    if version is None:
        active, first = _active(folder)
        names, seen = sorted({*version_names(folder), *active}), [first]
    else:
        names, seen = [version_named(folder, version)], []
    roles: dict[ObjectRef, dict[str, str]] = {}
    parents: set[str | None] = set()
    for name in names:
        path = manifest_path(folder, name)
        size = path.stat().st_size if path.is_file() else 0
        try:
            manifest = read_version(folder, name).manifest
        except CorruptIndexError as exc:
            seen.append(Checked(path, f"manifest of {name}", size, str(exc)))
            continue
        seen.append(Checked(path, f"manifest of {name}", size))
        parents |= {manifest.parent, manifest.card_version}
        for role, ref in manifest.objects().items():
            roles.setdefault(ref, {})[name] = role
    objects = Objects(folder / "objects")
    unreferenced = objects.unnamed({ref.sha256 for ref in roles}) if version is None else []
    for path in _without_manifest(folder, names) if version is None else []:
        if path.name in parents:
            fault = (
                f"{path / 'manifest.json'} is missing; restore it from a copy, or let `versions prune` remove the rest"
            )
            seen.append(Checked(path / "manifest.json", f"manifest of {path.name}", 0, fault))
        else:
            unreferenced.append(path)
    return Audit(objects, tuple(names), tuple(seen), roles, tuple(unreferenced))


def _active(folder: Path) -> tuple[list[str], Checked]:
    """Return the active version, if there is one, and what there is to say of the file that names it."""
    path = folder / "active"
    try:
        active = active_version(folder)
    except CorruptIndexError as exc:
        return [], Checked(path, "active", path.stat().st_size, str(exc))
    fault = (
        None if path.read_bytes() == f"{active}\n".encode() else f"has changed; expected {active!r} and a line's end"
    )
    return [active], Checked(path, "active", path.stat().st_size, fault)


def _without_manifest(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders of versions that have no manifest: it was lost, or a killed writer never had one."""
    found = sorted((folder / "versions").glob("*/"))
    return [path for path in found if is_version_name(path.name) and path.name not in names]


def _fault(path: Path, ref: ObjectRef, on_bytes: OnBytes) -> str | None:
    if not path.is_file():
        on_bytes(ref.bytes)
        return "is missing"
    size = path.stat().st_size
    if size != ref.bytes:
        on_bytes(ref.bytes)
        return f"has {size:,} bytes; the manifest says {ref.bytes:,}"
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            on_bytes(len(block))
    return None if digest.hexdigest() == ref.sha256 else "has changed"


def _words(roles: dict[str, str]) -> str:
    """Say what an object is, of which versions: mostly the same of all of them."""
    by_role: dict[str, list[str]] = {}
    for version, role in roles.items():
        by_role.setdefault(role, []).append(version)
    return "; ".join(f"{role} of {', '.join(versions)}" for role, versions in by_role.items())
