"""Delete: what is left answers as before, what is gone is unknown, and nothing is deleted by halves."""

from pathlib import Path

import pytest

from indexer import Ask, KnownExample, Question, delete
from indexer.errors import BuildError, UnknownExampleError
from indexer.index.versions import open_version
from tests.indexer.editing.small import BUILT, small_task

QUESTION = Question(KnownExample("test", "0"), k=BUILT)


def test_what_is_left_keeps_its_scores(folder: Path) -> None:
    before = Ask.open(folder, small_task()).query(QUESTION)
    delete(folder, ["0", "5"])
    delete(folder, (id for id in ["11"]))
    ask = Ask.open(folder, small_task())
    after = ask.query(QUESTION)
    for old, new in ((before.proponents, after.proponents), (before.opponents, after.opponents)):
        assert [(h.id, h.score) for h in new] == [(h.id, h.score) for h in old if h.id not in {"0", "5", "11"}]
    with pytest.raises(UnknownExampleError):
        ask.query(Question(KnownExample("train", "5")))


def test_no_vector_and_no_table_is_written(folder: Path) -> None:
    before = {path.name for path in (folder / "objects").iterdir()}
    version = delete(folder, ["2", "9", "2"])
    assert version.manifest.vectors.deleted is not None
    new = {path.name for path in (folder / "objects").iterdir()} - before
    assert new == {version.manifest.vectors.deleted.object.sha256}
    assert (version.manifest.rows, version.manifest.splits["train"]) == (BUILT - 2, BUILT - 2)


def test_an_unknown_id_deletes_nothing(folder: Path) -> None:
    before = open_version(folder)
    with pytest.raises(
        UnknownExampleError, match=r"1 of 3 ids are of no training example .* '12'; nothing was changed"
    ):
        delete(folder, ["1", "12", "2"])
    assert open_version(folder) == before


def test_the_last_example_stays(folder: Path) -> None:
    ids = [str(row) for row in range(BUILT)]
    with pytest.raises(BuildError, match="these are all 12 training examples of index 'index'; leave at least one"):
        delete(folder, ids)
    assert delete(folder, ids[1:]).manifest.rows == 1
    with pytest.raises(BuildError, match="these are all 1 training examples"):
        delete(folder, ["0"])
    answer = Ask.open(folder, small_task()).query(QUESTION)
    assert [hit.id for hit in answer.proponents] == [hit.id for hit in answer.opponents] == ["0"]
