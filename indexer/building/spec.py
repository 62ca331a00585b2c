"""BuildSpec: what a user decides about a build, as one value; readable from TOML.

method = "tracin"
parameters = ["encoder.*", "head.weight"]

[projection]
name = "rank1"
numbers = 1024
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from indexer.checkpoints.eta import CONVENTIONS
from indexer.errors import BuildError

MEMORY_FORMATS = ("auto", "contiguous", "channels_last")
PRECONDITIONERS = (None, "adam")
DEFAULT_PROJECTION: Mapping[str, Any] = {"name": "rank1", "numbers": 1024, "seed": 0}


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """How to build: the run, which of its checkpoints and how they weigh, the method, its projection, and how to run.

    checkpoints: a run: what `indexer.checkpoints.folder.open_run` reads. choose: so many of its checkpoints, by its
    loss; steps: those at these steps; neither: all. eta: ``learning_rate`` or ``interval``, see
    `indexer.checkpoints.eta`.
    projection: {"name", ...}: ``identity``, ``gaussian`` or ``rank1``; ``numbers`` is the most that is stored a
    checkpoint for each example, ``seed`` chooses the random matrices.
    parameters: patterns such as ``encoder.*`` of the parameters whose gradient is indexed, or ``!pooler.*`` of those
    that are left out; none: all trainable ones.
    preconditioner: ``adam`` scales gradients by Adam's step sizes; every checkpoint needs its ``optimizer_state``.
    batch_size: None plans it by the memory at hand. threads: None takes PyTorch's own number.
    memory_format: ``auto`` takes ``channels_last`` for models with 2-d convolutions that run in it.
    device: ``cpu``, ``cuda`` or ``cuda:1``: where gradients are made; the index does not depend on it.

    Raises:
        BuildError: a value is out of range.
    """

    checkpoints: Path
    method: str = "tracin"
    projection: Mapping[str, Any] = field(default_factory=lambda: dict(DEFAULT_PROJECTION))
    parameters: Sequence[str] = ()
    preconditioner: str | None = None
    choose: int | None = None
    steps: Sequence[int] = ()
    eta: str = "learning_rate"
    batch_size: int | None = None
    threads: int | None = None
    memory_format: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoints", Path(self.checkpoints))
        for name in ("parameters", "steps"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.choose is not None and self.steps:
            raise BuildError("choose and steps both say which checkpoints to take; give one of them")
        known_values = (("memory_format", MEMORY_FORMATS), ("preconditioner", PRECONDITIONERS), ("eta", CONVENTIONS))
        for name, known in known_values:
            if getattr(self, name) not in known:
                choices = ", ".join(repr(value) for value in known if value is not None)
                raise BuildError(f"{name} = {getattr(self, name)!r}: expected one of {choices}")
        for name in ("batch_size", "threads", "choose"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BuildError(f"{name} = {value}: expected at least 1")

    @property
    def method_parameters(self) -> dict[str, Any]:
        """What the method is told."""
        chosen = {} if self.preconditioner is None else {"preconditioner": self.preconditioner}
        return {"projection": dict(self.projection), **chosen}


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
    "choose": (int, "a whole number"),
    "steps": (list, "a list of steps, such as [71, 142]"),
    "eta": (str, "a name"),
    "projection": (dict, "a table, such as [projection]"),
    "batch_size": (int, "a whole number"),
    "threads": (int, "a whole number"),
    "parameters": (list, 'a list of patterns, such as ["encoder.*"]'),
    "preconditioner": (str, "a name"),
    "memory_format": (str, "a name"),
    "device": (str, "a name"),
}
