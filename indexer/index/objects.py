"""Immutable files named by the sha256 of their bytes.

A file is written under a temporary name in its final folder, synced and renamed: a reader sees all of it or nothing.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, Field

from indexer.atomic import TEMPORARY, sync_folder
from indexer.errors import CorruptIndexError

_OBJECT = re.compile("[0-9a-f]{64}")


class ObjectRef(BaseModel):
    """The name and size of an object, as a manifest keeps them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Objects:
    """The objects folder of one index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, ref: ObjectRef) -> Path:
        """Return where an object lies."""
        return self.folder / ref.sha256

    def add(self, data: bytes) -> ObjectRef:
        """Store bytes."""
        with self.writing() as (file, done):
            file.write(data)
        return done[0]

    @contextmanager
    def writing(self) -> Iterator[tuple[IO[bytes], list[ObjectRef]]]:
        """Open a new object for writing; its ref is in the list once the block has ended well."""
        self.folder.mkdir(parents=True, exist_ok=True)
        done: list[ObjectRef] = []
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=TEMPORARY, delete=False) as raw:
            temporary = Path(raw.name)
            try:
                yield raw.file, done
                raw.flush()
                os.fsync(raw.fileno())
                ref = ObjectRef(sha256=_sha256(temporary), bytes=temporary.stat().st_size)
                temporary.chmod(0o644)
                temporary.replace(self.path(ref))
                done.append(ref)
            finally:
                temporary.unlink(missing_ok=True)
        sync_folder(self.folder)

    def unnamed(self, named: set[str]) -> list[Path]:
        """Return the objects whose sha256 is not among these, and the files and folders that killed writers left."""
        if not self.folder.is_dir():
            return []
        return sorted(
            path
            for path in self.folder.iterdir()
            if (_OBJECT.fullmatch(path.name) and path.name not in named) or path.name.startswith(TEMPORARY)
        )

    def read(self, ref: ObjectRef, role: str) -> bytes:
        """Return an object's bytes, its size checked; role says what it is, for people."""
        self.check_size(ref, role)
        return self.path(ref).read_bytes()

    def check_size(self, ref: ObjectRef, role: str) -> None:
        """Refuse an object that is missing or of another size.

        Raises:
            CorruptIndexError: with the file and what it is.
        """
        path = self.path(ref)
        if not path.is_file():
            raise CorruptIndexError(
                f"{role}: {path} is missing; restore it from a copy, or rebuild with `proponent build`"
            )
        size = path.stat().st_size
        if size != ref.bytes:
            raise CorruptIndexError(
                f"{role}: {path} has {size:,} bytes; the manifest says {ref.bytes:,}. Restore it from a copy, "
                "or rebuild with `proponent build`"
            )

    def check_hash(self, ref: ObjectRef, role: str) -> None:
        """Refuse an object whose bytes have changed.

        Raises:
            CorruptIndexError: with the file and what it is.
        """
        self.check_size(ref, role)
        if _sha256(self.path(ref)) != ref.sha256:
            raise CorruptIndexError(
                f"{role}: the bytes of {self.path(ref)} have changed since it was built; restore it from a copy, "
                "or rebuild with `proponent build`"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
