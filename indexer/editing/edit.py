"""What every edit is: the only writer, the active version as its start, and a commit as its only effect.

Objects that it writes stand beside those that are there, and nothing names them before the new manifest does. An edit
that dies leaves the version it started from as it was, and files that `indexer.index.prune` removes.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from jaxtyping import Int64

from indexer.atomic import naming_full_disk
from indexer.index import manifest as m
from indexer.index.examples import Examples, open_examples
from indexer.index.lock import writing_in
from indexer.index.store import VectorStore, open_store
from indexer.index.tombstones import read_tombstones
from indexer.index.versions import IndexVersion, active_version, commit, open_version


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit at work: the version that it starts from, and which edit it is; started: seconds of the clock."""

    before: IndexVersion
    name: m.Edit
    started: float

    def commit(self, **changes: Any) -> IndexVersion:
        """Commit a version that is the one before with these fields of the manifest changed, and return it.

        The same changes of the same version are the same version, byte for byte.
        """
        before = self.before.manifest
        card_version = None if before.card is None else before.card_version or self.before.version
        lineage = {"parent": self.before.version, "edit": self.name, "card_version": card_version}
        after = commit(self.before.folder, m.Manifest.model_validate(dict(before) | changes | lineage))
        self._log(after)
        return after

    def _log(self, after: IndexVersion) -> None:
        """Append what is of the moment, outside every hash."""
        line = {self.name: after.version, "of": self.before.version}
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started))
        with (after.folder / "log.jsonl").open("ab") as file:
            file.write(orjson.dumps(line | {"at": at, "seconds": round(time.time() - self.started, 1)}) + b"\n")


@contextmanager
def editing(folder: str | Path, name: m.Edit) -> Iterator[Edit]:
    """Be the only writer in the folder of an index, and start from its active version.

    Raises:
        UnknownIndexError: the folder holds no finished index.
        CorruptIndexError: a file of the active version is missing, cut off or changed.
        BuildError: another build or edit is at work in the folder.
        DiskFullError: the disk filled up in the meantime.
    """
    folder = Path(folder)
    open_version(folder)  # a folder without an index is refused before a lock is put there
    with writing_in(folder):
        before = open_version(folder)
        with naming_full_disk(folder, lambda: _advice(before)):
            yield Edit(before, name, time.time())


def _advice(before: IndexVersion) -> str:
    if active_version(before.folder) == before.version:
        return "nothing was changed: make room, and do it again"
    return "the new version is committed and active all the same, only its line in the log is missing"


def verified_examples(version: IndexVersion) -> Examples:
    """Open the examples of a version; what is read from them goes into new objects, so every byte is checked first.

    Raises:
        CorruptIndexError: a table or the tombstones have changed.
    """
    _verify(version, ("examples", "tombstones"))
    return open_examples(version.objects, version.manifest)


def verified_store(version: IndexVersion) -> VectorStore:
    """Open the vectors of a version, every byte checked for the same reason.

    Raises:
        CorruptIndexError: a shard or the code has changed.
    """
    _verify(version, ("vectors", "code of the vectors"))
    return open_store(version.objects, version.manifest.vectors)


def _verify(version: IndexVersion, roles: tuple[str, ...]) -> None:
    for role, ref in version.manifest.objects().items():
        if role.startswith(roles):
            version.objects.check_hash(ref, role)


def deleted_rows(version: IndexVersion) -> Int64[np.ndarray, " t"]:
    """Return the positions of deleted rows, in order."""
    vectors = version.manifest.vectors
    return read_tombstones(version.objects, vectors.deleted, vectors.rows)
