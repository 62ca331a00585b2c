"""The manifest: one JSON document that says everything about one version of an index.

Read and written by pydantic, so that a manifest of another shape is refused with the place that differs. A change
that an older reader would misread raises ``FORMAT``; the golden index in the tests holds format 1 for ever.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from indexer.index.card import CardEntry
from indexer.index.objects import ObjectRef

FORMAT: Literal[1] = 1

Edit = Literal["append", "delete", "relabel", "compact", "rebuild-search"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodEntry(_Frozen):
    """The method, its parameters with every default written out, what was fitted, and how random numbers were drawn."""

    name: str
    parameters: dict[str, Any]
    fitted: ObjectRef | None
    random_scheme: Literal["philox-icdf-1"]
    random_check: dict[str, list[float]]


class TaskEntry(_Frozen):
    """What the index remembers of the task: never code."""

    labels: list[str] | None
    input: dict[str, Any]


class RateEntry(_Frozen):
    """Parameters of the gradient that have one eta of their own, because the optimizer stepped them at another rate."""

    parameters: list[str] = Field(min_length=1)
    eta: float = Field(gt=0)


class CheckpointEntry(_Frozen):
    """One checkpoint: its weights (safetensors) and what its run said.

    learning_rate: of the last step before it, of the first group of the optimizer; null where nothing says it. rates:
    every parameter of the gradient by its eta, or nothing where all have one; ``eta`` is the first parameter's.
    adapter: the weights are those of an adapter; what they leave out is the task's model's own.
    """

    object: ObjectRef
    file: str
    learning_rate: float | None = Field(ge=0)
    eta: float = Field(gt=0)
    step: int | None
    epoch: float | None
    train_loss: float | None
    rates: list[RateEntry] = []
    adapter: bool = False


class PartEntry(_Frozen):
    """A named slice of the vectors."""

    name: str
    start: int = Field(ge=0)
    stop: int = Field(gt=0)


class ShardEntry(_Frozen):
    """A file of consecutive vectors."""

    object: ObjectRef
    rows: int = Field(gt=0)


class CodeEntry(_Frozen):
    """The code of coded vectors (safetensors: bits and step of every coordinate), and the bytes of a record."""

    object: ObjectRef
    row_bytes: int = Field(ge=4)


class TombstonesEntry(_Frozen):
    """The positions of deleted rows, as `indexer.index.tombstones` keeps them, and how many they are."""

    object: ObjectRef
    rows: int = Field(gt=0)


class VectorsEntry(_Frozen):
    """The train vectors, shard after shard: little-endian float32 rows, or records of a code.

    rows: all that are stored; deleted: those that are never answered any more, or null.
    """

    dtype: Literal["<f4", "coded"]
    rows: int = Field(gt=0)
    width: int = Field(gt=0)
    parts: list[PartEntry]
    shards: list[ShardEntry]
    code: CodeEntry | None = None
    deleted: TombstonesEntry | None = None

    @model_validator(mode="after")
    def _coded_by_its_code(self) -> "VectorsEntry":
        if (self.code is None) == (self.dtype == "coded"):
            raise ValueError("vectors of dtype 'coded' have a code, and no others have one")
        return self


class PrefixEntry(_Frozen):
    """The first stage of `indexer.index.search.prefix`: all rows that were there when it was fitted, longest first.

    vectors: their coded leading coordinates. rotation: safetensors, whose columns are the leading directions. sides: a
    position, a norm and two bounds for each row.
    """

    vectors: VectorsEntry
    rotation: ObjectRef
    sides: ObjectRef


class SearchRecallEntry(_Frozen):
    """How much of the true first k of each direction a search proposed, over queries that it was not tuned on.

    source: held-out queries, or rows of the index itself where it had none.

    exhaustive: the share of these queries for which it proved that nothing is missing.
    """

    k: int = Field(gt=0)
    queries: int = Field(gt=0)
    proponents: float = Field(ge=0, le=1)
    opponents: float = Field(ge=0, le=1)
    exhaustive: float = Field(ge=0, le=1)
    source: Literal["held-out", "rows"] = "held-out"


class SearchEntry(_Frozen):
    """How the vectors are searched: ``flat`` reads them all, ``prefix`` as few as bounds allow.

    queries: held-out query vectors (safetensors), to fit and measure again without a model; null where there were none.
    target: the recall that was asked for, and recall: what was measured; null where nothing was.
    """

    kind: Literal["flat", "prefix"]
    prefix: PrefixEntry | None = None
    queries: ObjectRef | None = None
    target: float | None = Field(default=None, gt=0, le=1)
    recall: SearchRecallEntry | None = None

    @model_validator(mode="after")
    def _prefix_by_its_kind(self) -> "SearchEntry":
        if (self.prefix is None) == (self.kind == "prefix"):
            raise ValueError("a search of kind 'prefix' has a prefix, and no other has one")
        return self

    def objects(self) -> dict[str, ObjectRef]:
        """Return every object of the search by a name for people."""
        found = {} if self.queries is None else {"queries of the search": self.queries}
        if self.prefix is not None:
            shards = enumerate(self.prefix.vectors.shards, 1)
            found |= {f"search vectors, shard {i}": shard.object for i, shard in shards}
            if self.prefix.vectors.code is not None:
                found["code of the search vectors"] = self.prefix.vectors.code.object
            found |= {"rotation of the search": self.prefix.rotation, "sides of the search": self.prefix.sides}
        return found


class ExamplesEntry(_Frozen):
    """One SQLite table of examples, and how many of each split it holds."""

    object: ObjectRef
    splits: dict[str, int]


class ProbeEntry(_Frozen):
    """Outputs and losses of a few training examples, by their ids, at every checkpoint."""

    object: ObjectRef
    ids: list[str] = Field(min_length=1)


class Plan(_Frozen):
    """Fixed at the start of a build: under one plan, on one kind of machine, vectors are equal bit for bit."""

    batch_size: int = Field(gt=0)
    threads: int = Field(gt=0)
    dtype: Literal["float32"]
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    device: str = "cpu"
    versions: dict[str, str]


class BlockEntry(_Frozen):
    """One parameter block of the gradient, and how it was made."""

    name: str
    parameters: list[str]
    shape: tuple[int, int]
    path: Literal["factors", "copies", "vmap", "loop"]
    note: str


class Manifest(_Frozen):
    """One version of an index.

    sequential: why queries take one checkpoint after the other; null where one pass takes all.
    left_out: parameters that are not part of the gradient: frozen, or not chosen.
    optimizer: what the run was trained with, as its listing says; null where it does not. caveats: what a reader of
    scores must know, repeated in every answer. card: how well scores agree with exact ones, where that was measured.
    card_version: the version that the card was measured on, where it is an earlier one. parent: the version that this
    one was made from, and edit: how; null for one that was built. next_row: one past the last training row of the task
    that the index ever had, where its examples do not say so any more.
    Fields with a default came after the first manifests of format 1, which do not have them.
    """

    format: Literal[1]
    method: MethodEntry
    task: TaskEntry
    checkpoints: list[CheckpointEntry] = Field(min_length=1)
    eta_convention: str = Field(pattern="^(learning_rate|interval)$")
    blocks: list[BlockEntry]
    sequential: str | None
    left_out: list[str] = []
    optimizer: dict[str, Any] | None = None
    caveats: list[str] = []
    choice: dict[str, Any] | None = None
    card: CardEntry | None = None
    card_version: str | None = None
    vectors: VectorsEntry
    search: SearchEntry
    examples: list[ExamplesEntry] = Field(min_length=1)
    probe: ProbeEntry
    plan: Plan
    parent: str | None = None
    edit: Edit | None = None
    next_row: int | None = None

    def etas(self) -> list[dict[str, float]]:
        """Return the weight of each checkpoint, for every parameter of the gradient."""
        names = [name for block in self.blocks for name in block.parameters]
        return [
            dict.fromkeys(names, entry.eta) | {name: rate.eta for rate in entry.rates for name in rate.parameters}
            for entry in self.checkpoints
        ]

    def objects(self) -> dict[str, ObjectRef]:
        """Return every object by a name for people."""
        found = {f"checkpoint {i} ({c.file!r})": c.object for i, c in enumerate(self.checkpoints, 1)}
        found |= {f"vectors, shard {i}": shard.object for i, shard in enumerate(self.vectors.shards, 1)}
        if self.vectors.deleted is not None:
            found["tombstones"] = self.vectors.deleted.object
        if self.vectors.code is not None:
            found["code of the vectors"] = self.vectors.code.object
        found |= {"examples" if i == 1 else f"examples, segment {i}": e.object for i, e in enumerate(self.examples, 1)}
        found |= self.search.objects()
        found["probe outputs"] = self.probe.object
        if self.method.fitted is not None:
            found["fitted tensors"] = self.method.fitted
        return found

    @property
    def rows(self) -> int:
        """How many training examples can be answered: the stored rows that are not deleted."""
        deleted = self.vectors.deleted
        return self.vectors.rows - (0 if deleted is None else deleted.rows)

    @property
    def splits(self) -> dict[str, int]:
        """How many examples each split has, over all segments and without deleted ones."""
        names = dict.fromkeys(name for entry in self.examples for name in entry.splits)
        found = {name: sum(entry.splits.get(name, 0) for entry in self.examples) for name in names}
        return found | {"train": self.rows}
