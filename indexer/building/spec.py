"""BuildSpec: what a user decides about a build, as one value; readable from TOML.

method = "tracin"
parameters = ["encoder.*", "head.weight"]

bytes_per_example = 256

[projection]
name = "pca"
sample = 4000
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from indexer.checkpoints.eta import CONVENTIONS
from indexer.errors import BuildError
from indexer.index.code import SCALE_BYTES
from indexer.projection.pca import DEFAULT_BYTES, SMALLEST_BYTES

MEMORY_FORMATS = ("auto", "contiguous", "channels_last")
PRECONDITIONERS = (None, "adam")
DEFAULT_PROJECTION: Mapping[str, Any] = {"name": "pca", "seed": 0}
DEFAULT_NUMBERS = 1024  # a checkpoint, of a projection that needs no data, where nobody says how many bytes
CARD_QUERIES = 50


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """How to build: the run, which of its checkpoints and how they weigh, the method, its projection, and how to run.

    checkpoints: a run: what `indexer.checkpoints.folder.open_run` reads. choose: so many of its checkpoints, by its
    loss; steps: those at these steps; neither: all. eta: ``learning_rate`` or ``interval``, see
    `indexer.checkpoints.eta`.
    projection: {"name", ...}: ``pca``, whose bases are fitted on ``sample`` training examples; or without data
    ``countsketch``, ``rank1``, ``gaussian``, with so many ``numbers`` a checkpoint; or ``identity``. ``seed`` chooses
    sample and random matrices.
    bytes_per_example: the most that is stored of a vector, all checkpoints together, coded in 4 and 8 bits a number.
    None: what is usual for pca; the others are kept as float32.
    card_queries: examples whose exact scores measure how right the index is; 0 leaves the card out.
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
    bytes_per_example: int | None = None
    preconditioner: str | None = None
    card_queries: int = CARD_QUERIES
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
        least = {"batch_size": 1, "threads": 1, "choose": 1, "card_queries": 0, "bytes_per_example": SMALLEST_BYTES}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise BuildError(f"{name} = {value}: expected at least {lowest}")
        _check_projection(self.projection, self.bytes_per_example)

    @property
    def coded_bytes(self) -> int | None:
        """The most that a coded row takes, or None where rows are float32."""
        if self.projection.get("name") == "pca":
            return self.bytes_per_example or self.projection.get("bytes", DEFAULT_BYTES)
        return self.bytes_per_example

    def method_parameters(self, checkpoints: int) -> dict[str, Any]:
        """Return what the method is told; bytes become numbers where a projection counts in these."""
        projection = dict(self.projection)
        if projection.get("name") == "pca":
            projection["bytes"] = self.coded_bytes
        elif projection.get("name") != "identity" and "numbers" not in projection:
            projection["numbers"] = DEFAULT_NUMBERS
            if self.bytes_per_example is not None:
                projection["numbers"] = max(1, 2 * (self.bytes_per_example - SCALE_BYTES) // checkpoints)
        chosen = {} if self.preconditioner is None else {"preconditioner": self.preconditioner}
        return {"projection": projection, **chosen}


def _check_projection(projection: Mapping[str, Any], bytes_per_example: int | None) -> None:
    """Refuse numbers that are none, and a projection that contradicts the bytes.

    Raises:
        BuildError: with both.
    """
    name = projection.get("name")
    for key, value in projection.items():
        if key != "name" and (not isinstance(value, int) or isinstance(value, bool)):
            raise BuildError(f"projection {name!r}: {key} = {value!r}; expected a whole number")
    if bytes_per_example is None:
        return
    if name == "identity":
        raise BuildError("bytes_per_example and projection 'identity' contradict each other: it keeps all; use 'pca'")
    if projection.get("bytes", bytes_per_example) != bytes_per_example:
        raise BuildError(
            f"bytes_per_example = {bytes_per_example}, and the projection has bytes = {projection['bytes']}; "
            "give one of them"
        )


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
    "bytes_per_example": (int, "a whole number"),
    "card_queries": (int, "a whole number"),
    "threads": (int, "a whole number"),
    "parameters": (list, 'a list of patterns, such as ["encoder.*"]'),
    "preconditioner": (str, "a name"),
    "memory_format": (str, "a name"),
    "device": (str, "a name"),
}
