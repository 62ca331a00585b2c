"""BuildSpec: what a user decides about a build, as one value; readable from TOML.

method = "tracin"
batch_size = 128

[projection]
name = "rank1"
numbers = 1024
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from indexer.errors import BuildError

DEFAULT_PROJECTION: Mapping[str, Any] = {"name": "rank1", "numbers": 1024, "seed": 0}


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """How to build: the checkpoints' folder, the method, its projection, and how to run.

    projection: {"name", ...}: ``identity``, ``gaussian`` or ``rank1``; ``numbers`` is the most that is stored a
    checkpoint for each example, ``seed`` chooses the random matrices.
    threads: None takes PyTorch's own number; it is fixed in the plan.

    Raises:
        BuildError: a value is out of range.
    """

    checkpoints: Path
    method: str = "tracin"
    projection: Mapping[str, Any] = field(default_factory=lambda: dict(DEFAULT_PROJECTION))
    batch_size: int = 128
    threads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoints", Path(self.checkpoints))
        for name in ("batch_size", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BuildError(f"{name} = {value}: expected at least 1")


def read_spec(path: Path, checkpoints: Path) -> BuildSpec:
    """Read a spec from TOML; the checkpoints' folder is given apart, because it is of one machine.

    Raises:
        BuildError: not TOML, or a key that a spec does not have.
    """
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise BuildError(f"spec {str(path)!r} cannot be read as TOML: {exc}") from exc
    known = {f.name for f in fields(BuildSpec)} - {"checkpoints"}
    unknown = sorted(set(document) - known)
    if unknown:
        raise BuildError(f"spec {str(path)!r} has the key {unknown[0]!r}; expected only {', '.join(sorted(known))}")
    for key, (kind, name) in _TYPES.items():
        value = document.get(key)
        if key in document and (isinstance(value, bool) or not isinstance(value, kind)):
            raise BuildError(f"spec {str(path)!r}: {key} = {value!r}: expected {name}")
    return BuildSpec(checkpoints=checkpoints, **document)


_TYPES: Mapping[str, tuple[type, str]] = {
    "method": (str, "a name"),
    "projection": (dict, "a table, such as [projection]"),
    "batch_size": (int, "a whole number"),
    "threads": (int, "a whole number"),
}
