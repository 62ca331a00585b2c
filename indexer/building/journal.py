"""The journal of a build, `<index>/building/`: what is needed to go on where a build was stopped, however it was.

    plan.json          everything that decides the result, before anything is computed
    fit.json           bases, code and the card's queries
    shard-00003.json   the vectors and the side data of some rows
    objects/           side data, which are no part of an index

A record is written when the objects that it names are synced, and carries the hash of itself and of the record that it
follows: plan <- fit <- shards. One that cannot be read, is not what its hash says, follows another record or names an
object that is not whole counts as never made. The folder is removed after the commit.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from indexer.atomic import write_atomically
from indexer.building.side import Side, read_side
from indexer.errors import BuildError, CorruptIndexError
from indexer.index.begun import FIT, FOLDER, PLAN, SHARD, remove_journal
from indexer.index.manifest import BlockEntry, CheckpointEntry, CodeEntry, Plan, ProbeEntry, ShardEntry, TaskEntry
from indexer.index.objects import ObjectRef, Objects


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanRecord(_Frozen):
    """What a build was told, and what it found: with the same of all of it, the result is the same.

    machine: the kind of processor; rows: examples by split; blocks: what gradients are of; probe: outputs and losses of
    a few training examples.
    """

    journal: Literal[2] = 2
    spec: dict[str, Any]
    plan: Plan
    machine: str
    task: TaskEntry
    rows: dict[str, int]
    checkpoints: list[CheckpointEntry]
    blocks: list[BlockEntry]
    probe: ProbeEntry


class FitRecord(_Frozen):
    """What the method was fitted to be, and how many queries the card asks.

    sample, asked: hashes over the examples of the sample and of the card's queries.
    """

    fitted: ObjectRef | None
    code: CodeEntry | None
    queries: int = Field(ge=0)
    sample: str
    asked: str


class ShardRecord(_Frozen):
    """The rows from ``start`` on that a shard holds, and the object of their side data."""

    start: int = Field(ge=0)
    shard: ShardEntry
    side: ObjectRef


R = TypeVar("R", PlanRecord, FitRecord, ShardRecord)


@dataclass(frozen=True, slots=True)
class Kept(Generic[R]):
    """A record of the journal, and its own hash: what the records that follow it carry."""

    record: R
    seal: str


class Journal:
    """The journal in the folder of an index; whoever writes holds the folder's lock."""

    def __init__(self, index: Path) -> None:
        self.folder = index / FOLDER
        self.objects = Objects(index / "objects")
        self.own = Objects(self.folder / "objects")

    def plan(self) -> Kept[PlanRecord] | None:
        """Return the plan, or None where there is no journal.

        Raises:
            BuildError: it is that of another version of Proponent.
        """
        return self._read(PLAN, PlanRecord, "")

    def fit(self, after: str) -> Kept[FitRecord] | None:
        """Return the fit that was made under a plan, or None."""
        kept = self._read(FIT, FitRecord, after)
        if kept is None:
            return None
        code = kept.record.code
        refs = [kept.record.fitted, None if code is None else code.object]
        return kept if all(whole(self.objects, ref) for ref in refs if ref is not None) else None

    def shard(self, number: int, after: str) -> ShardRecord | None:
        """Return a shard that was made with a fit, or None."""
        kept = self._read(_shard_name(number), ShardRecord, after)
        if kept is None:
            return None
        record = kept.record
        sound = whole(self.objects, record.shard.object) and whole(self.own, record.side)
        return record if sound else None

    def rows(self, after: str) -> int:
        """Return the rows of the shards that were made with a fit, whole or not."""
        noted = [self._read(path.stem, ShardRecord, after) for path in self.folder.glob(f"{SHARD}*.json")]
        return sum(kept.record.shard.rows for kept in noted if kept is not None)

    def write_plan(self, record: PlanRecord) -> Kept[PlanRecord]:
        """Note the plan."""
        return self._write(PLAN, record, "")

    def write_fit(self, record: FitRecord, after: str) -> Kept[FitRecord]:
        """Note the fit."""
        return self._write(FIT, record, after)

    def write_shard(self, number: int, record: ShardRecord, after: str) -> None:
        """Note a shard."""
        self._write(_shard_name(number), record, after)

    def remove(self) -> None:
        """Remove the journal: the plan last, so that what is left of it is still a journal."""
        remove_journal(self.folder.parent)

    def _read(self, name: str, kind: type[R], after: str) -> Kept[R] | None:
        path = self.folder / f"{name}.json"
        try:
            document = orjson.loads(path.read_bytes())
            if document.pop("seal") != _seal(document) or document["after"] != after:
                return None
        except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return None
        try:
            return Kept(kind.model_validate(document["record"]), _seal(document))
        except ValidationError as exc:
            raise BuildError(
                f"the build in {str(self.folder.parent)!r} was begun by another version of Proponent; go on with that "
                "one, or begin anew with `--restart` (restart=True)"
            ) from exc

    def _write(self, name: str, record: R, after: str) -> Kept[R]:
        document = {"after": after, "record": record.model_dump(mode="json")}
        data = orjson.dumps({"seal": _seal(document), **document}, option=orjson.OPT_INDENT_2)
        write_atomically(self.folder / f"{name}.json", data)
        return Kept(record, _seal(document))


@dataclass(frozen=True, slots=True)
class ShardJournal:
    """The shards of a journal that follow one fit, for `write_vectors`."""

    journal: Journal
    after: str
    _known: dict[int, ShardRecord] = field(default_factory=dict)

    def finished(self, ranges: list[range]) -> Mapping[int, ShardEntry]:
        """Return the shards that are whole and hold the rows that the plan gives them; each is hashed in full."""
        for number, rows in enumerate(ranges):
            record = self.journal.shard(number, self.after)
            if record is not None and (record.start, record.shard.rows) == (rows.start, len(rows)):
                self._known[number] = record
        return {number: record.shard for number, record in self._known.items()}

    def side(self, number: int) -> Side:
        """Return the side data of a finished shard."""
        return read_side(self.journal.own.read(self._known[number].side, "side data"))

    def keep(self, number: int, rows: range, shard: ShardEntry, side: Side) -> None:
        """Note a shard as finished, durably: its side data first."""
        record = ShardRecord(start=rows.start, shard=shard, side=self.journal.own.add(side.to_bytes()))
        self.journal.write_shard(number, record, self.after)


def whole(objects: Objects, ref: ObjectRef) -> bool:
    """Say whether an object is there with the bytes that it is named after."""
    try:
        objects.check_hash(ref, "object of a build")
    except CorruptIndexError:
        return False
    return True


def _seal(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _shard_name(number: int) -> str:
    return f"{SHARD}{number:05d}"
