"""Compact: living rows bit for bit at new positions, the same answers, and files that hold nothing else."""

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from indexer import Ask, KnownExample, Question, append, compact, delete, relabel
from indexer.editing.edit import verified_examples
from indexer.errors import BuildError, CorruptIndexError
from indexer.index.store import VectorStore, open_store
from indexer.index.versions import IndexVersion, open_version
from tests.golden.golden_task import task as golden_task
from tests.indexer.editing.small import LABELS, ROWS, TARGETS, small_task

GOLDEN = Path(__file__).parents[2] / "golden"
QUESTION = Question(KnownExample("test", "2"), k=ROWS)


def store(version: IndexVersion) -> VectorStore:
    return open_store(version.objects, version.manifest.vectors)


def edited(folder: Path) -> IndexVersion:
    """An index of three segments and three dead rows."""
    append(folder, small_task(), [13, 12])
    relabel(folder, small_task(), {"3": LABELS[(int(TARGETS[3]) + 1) % 3]})
    return delete(folder, ["0", "13"])


def test_living_rows_are_copied_bit_for_bit_in_their_order(folder: Path) -> None:
    before = edited(folder)
    after = compact(folder)
    living = [position for position in range(15) if position not in (0, 3, 13)]
    assert store(after).stored(range(12)).tobytes() == store(before).stored(living).tobytes()
    with closing(verified_examples(before)) as old, closing(verified_examples(after)) as new:
        rows = zip(old.rows(), new.rows(), strict=True)
        for number, (was, row) in enumerate(rows):
            train = row.example.split == "train"
            assert row == replace(was, example=replace(was.example, position=number if train else None))
        assert new.totals().tolist() == old.totals()[living].tolist()
    assert after.manifest.splits == before.manifest.splits
    assert (after.manifest.vectors.deleted, after.manifest.vectors.rows, len(after.manifest.examples)) == (None, 12, 1)
    assert after.manifest.next_row == 14


def test_answers_do_not_change(folder: Path) -> None:
    edited(folder)
    ask = Ask.open(folder, small_task())
    compact(folder)
    after = Ask.open(folder, small_task())
    for question in (QUESTION, replace(QUESTION, view="normalised")):
        old, new = ask.query(question), after.query(question)
        assert (new.proponents, new.opponents) == (old.proponents, old.opponents)
    assert list(after.index.examples.listing("test", start=0, count=9)) == list(
        ask.index.examples.listing("test", start=0, count=9)
    )


def test_progress_is_told_to_the_last_row(folder: Path) -> None:
    delete(folder, ["1"])
    told: list[tuple[str, int, int]] = []
    compact(folder, lambda *stage: told.append(stage))
    assert told[0] == ("vectors", 12, 12)
    assert told[1:] == [("examples", number, 15) for number in range(1, 16)]


def test_nothing_to_compact_is_refused(folder: Path) -> None:
    first = open_version(folder)
    with pytest.raises(BuildError, match="index 'index' has no deleted rows and one table of examples; there is no"):
        compact(folder)
    assert open_version(folder) == first
    delete(folder, ["4"])
    again = compact(folder)
    with pytest.raises(BuildError, match="there is nothing to compact"):
        compact(folder)
    assert open_version(folder) == again


def test_a_changed_shard_is_not_copied(folder: Path) -> None:
    version = delete(folder, ["1"])
    path = version.objects.path(version.manifest.vectors.shards[0].object)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptIndexError, match=r"vectors, shard 1: the bytes of .* have changed"):
        compact(folder)
    assert open_version(folder) == version


@pytest.mark.parametrize("name", ["format-1", "format-1-rank1"])
def test_the_golden_index_is_deleted_from_and_compacted(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    question = Question(KnownExample("test", "1"), k=6)
    whole = Ask.open(folder, golden_task).query(question)
    delete(folder, ["0", "4"])
    compact(folder)
    ask = Ask.open(folder, golden_task)
    found = ask.query(question)
    for old, new in ((whole.proponents, found.proponents), (whole.opponents, found.opponents)):
        assert [(hit.id, hit.score) for hit in new] == [(hit.id, hit.score) for hit in old if hit.id not in "04"]
    assert [value for _, value in ask.index.examples.self_influence()] == sorted(
        ask.index.examples.totals().tolist(), reverse=True
    )
