"""The journal: what is written is read again, and whatever is not whole counts as never made."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from indexer.atomic import write_atomically
from indexer.building.journal import FitRecord, Journal, ShardJournal, ShardRecord, _seal, whole
from indexer.building.side import side_of
from indexer.errors import BuildError
from indexer.index.manifest import CodeEntry, ShardEntry

TEXTS = ["ab" * 16, "cd" * 16]
RANGES = [range(0, 2), range(2, 4)]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "index")


def fit(journal: Journal) -> FitRecord:
    code = CodeEntry(object=journal.objects.add(b"code"), row_bytes=5)
    return FitRecord(fitted=journal.objects.add(b"bases"), code=code, queries=3, sample="s", asked="a")


def keep(journal: Journal, number: int, after: str = "fit") -> ShardRecord:
    """Note a shard of two rows."""
    shard = ShardEntry(object=journal.objects.add(b"vectors %d" % number), rows=2)
    ShardJournal(journal, after).keep(number, RANGES[number], shard, side_of(TEXTS))
    found = journal.shard(number, after)
    assert found is not None
    return found


def test_nothing_is_known_of_an_empty_folder(journal: Journal) -> None:
    assert journal.plan() is None and journal.fit("plan") is None and journal.shard(0, "fit") is None
    assert journal.rows("fit") == 0
    journal.remove()


def test_a_record_is_read_as_it_was_written(journal: Journal) -> None:
    record = fit(journal)
    kept = journal.write_fit(record, "plan")
    assert journal.fit("plan") == kept and kept.record == record


def test_a_record_that_follows_another_is_none_of_this_build(journal: Journal) -> None:
    journal.write_fit(fit(journal), "plan")
    keep(journal, 0)
    assert journal.fit("another plan") is None
    assert journal.shard(0, "another fit") is None
    assert ShardJournal(journal, "another fit").finished(RANGES) == {}
    assert journal.rows("another fit") == 0


@pytest.mark.parametrize("name", ["fit.json", "shard-00000.json"])
@pytest.mark.parametrize(
    "tear",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: bytes(len(data)),
        lambda data: b"[]",
        lambda data: b"{}",
        lambda data: orjson.dumps(orjson.loads(data) | {"seal": 1}),
        lambda data: data.replace(b"5", b"6").replace(b"2", b"3"),
    ],
    ids=["half", "empty", "zeros", "list", "no seal", "wrong seal", "digits"],
)
def test_a_torn_record_was_never_made(journal: Journal, name: str, tear: Callable[[bytes], bytes]) -> None:
    journal.write_fit(fit(journal), "plan")
    keep(journal, 0)
    path = journal.folder / name
    path.write_bytes(tear(path.read_bytes()))
    found = journal.fit("plan") if name == "fit.json" else journal.shard(0, "fit")
    assert found is None


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"CODE")])
def test_a_record_whose_object_is_not_whole_was_never_made(journal: Journal, spoil: Callable[[Path], object]) -> None:
    record = fit(journal)
    journal.write_fit(record, "plan")
    assert record.code is not None and whole(journal.objects, record.code.object)
    spoil(journal.objects.path(record.code.object))
    assert not whole(journal.objects, record.code.object)
    assert journal.fit("plan") is None
    shards = [keep(journal, number) for number in (0, 1)]
    spoil(journal.objects.path(shards[0].shard.object))
    spoil(journal.own.path(shards[1].side))
    assert journal.shard(0, "fit") is None
    assert journal.shard(1, "fit") is None


def test_finished_shards_are_those_of_the_plan(journal: Journal) -> None:
    records = [keep(journal, number) for number in (0, 1)]
    shards = ShardJournal(journal, "fit")
    assert shards.finished(RANGES) == {number: record.shard for number, record in enumerate(records)}
    assert journal.rows("fit") == 4
    assert list(shards.side(1).content[0]) == [0xAB] * 16
    assert ShardJournal(journal, "fit").finished([range(0, 2), range(2, 5)]) == {0: records[0].shard}


def test_the_plan_is_the_last_to_go(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.write_fit(fit(journal), "plan")
    keep(journal, 0)
    (journal.folder / "plan.json").write_bytes(b"")
    gone: list[str] = []
    unlink = Path.unlink

    def noted(path: Path) -> None:
        gone.append(path.name)
        unlink(path)

    monkeypatch.setattr(Path, "unlink", noted)
    journal.remove()
    assert gone[-1] == "plan.json" and not journal.folder.exists()


def test_a_plan_of_another_version_is_no_torn_one(journal: Journal) -> None:
    """What was begun is not begun anew without a word, because a record has other fields."""
    document = {"after": "", "record": {"journal": 1}}
    write_atomically(journal.folder / "plan.json", orjson.dumps({"seal": _seal(document), **document}))
    with pytest.raises(
        BuildError, match="was begun by another version of Proponent; go on with that one, or begin ane"
    ):
        journal.plan()
