"""The golden index of format 1 opens and answers as on the day it was made, and new indexes of it look the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from indexer import Ask, KnownExample, Question
from tests.golden.golden_task import task
from tests.golden.make import make

GOLDEN = Path(__file__).parent / "format-1"
VERSION = "46afe33f106f6b26"  # its bytes: whoever changes them has broken format 1
FLOAT32 = 1e-5  # relative: the query's gradient is computed anew, on another machine; worked out in float64 below

# eta_i (p_i(z') - y') . (p_i(z) - y) (x' . x + 1) for i = 1, 2, by hand in float64
ASKED = {
    ("0", "standing"): [
        ("0", 0.1383413), ("1", 0.1383413), ("5", -0.4320573), ("3", -0.4631130), ("4", -0.4631130), ("2", -1.2278875)
    ],
    ("1", "lying"): [
        ("3", 4.0270909), ("2", 1.7028289), ("4", 0.8054182), ("5", 0.7429504), ("0", -0.6800410), ("1", -0.6800410)
    ],
}  # fmt: skip
INPUT = ("modality", "height", "width", "channels", "mean", "std")
OPPONENTS = {("0", "standing"): ["2", "3", "4", "5", "0", "1"], ("1", "lying"): ["0", "1", "5", "4", "2", "3"]}


def keys(document: Any) -> Any:
    """Return a document with its keys only; a list is shown by its first entry."""
    if isinstance(document, dict):
        return {key: keys(value) for key, value in document.items()}
    return [keys(document[0])] if isinstance(document, list) and document else None


def manifest(folder: Path) -> Any:
    [path] = folder.glob("versions/*/manifest.json")
    return json.loads(path.read_bytes())


@pytest.mark.parametrize(("id", "label"), ASKED)
def test_the_golden_index_answers_as_ever(id: str, label: str) -> None:
    ranking = Ask.open(GOLDEN, task).query(Question(KnownExample("test", id), label=label, k=6))
    expected = ASKED[id, label]
    assert [hit.id for hit in ranking.proponents] == [id for id, _ in expected]
    assert [hit.score for hit in ranking.proponents] == pytest.approx([score for _, score in expected], rel=FLOAT32)
    assert [hit.id for hit in ranking.opponents] == OPPONENTS[id, label]
    assert ranking.version == VERSION
    assert ranking.query.predicted == "standing"


def test_the_manifest_has_the_keys_of_format_1() -> None:
    ref = {"sha256": None, "bytes": None}
    assert keys(manifest(GOLDEN)) == {
        "format": None,
        "method": {"name": None, "parameters": {"projection": {"name": None}}, "fitted": None}
        | {"random_scheme": None, "random_check": {}},
        "task": {"labels": [None], "input": dict.fromkeys(INPUT)},
        "checkpoints": [
            {"object": ref, "file": None, "learning_rate": None, "eta": None}
            | {"step": None, "epoch": None, "train_loss": None}
        ],
        "eta_convention": None,
        "blocks": [{"name": None, "parameters": [None], "shape": [None], "path": None, "note": None}],
        "sequential": None,
        "vectors": {
            "dtype": None,
            "rows": None,
            "width": None,
            "parts": [{"name": None, "start": None, "stop": None}],
            "shards": [{"object": ref, "rows": None}],
        },
        "search": {"kind": None},
        "examples": [{"object": ref, "splits": {"train": None, "test": None}}],
        "probe": {"object": ref, "ids": [None]},
        "plan": {
            "batch_size": None,
            "threads": None,
            "dtype": None,
            "versions": dict.fromkeys(("proponent", "torch", "numpy", "faiss-cpu", "pillow", "python")),
        },
    }


def test_a_new_index_of_the_same_task_is_of_the_same_format(tmp_path: Path) -> None:
    """What came later has a default, so that it may be absent; nothing else may differ."""
    make(tmp_path / "new")
    old, new = manifest(GOLDEN), manifest(tmp_path / "new")
    later = {name: new.pop(name) for name in ("left_out", "optimizer", "caveats", "choice")}
    assert later == {"left_out": [], "optimizer": None, "caveats": [], "choice": None}
    card = new.pop("card")
    assert (card["queries"], card["source"], card["rows"]) == (2, "test", 6)
    assert card["proponents"]["recall_at_10"] == card["opponents"]["recall_at_10"] == 1  # of all rows, there are six
    assert [(entry.pop("rates"), entry.pop("adapter")) for entry in new["checkpoints"]] == [([], False)] * 2
    assert {name: new["plan"].pop(name) for name in ("memory_format", "device")} == {
        "memory_format": "contiguous",
        "device": "cpu",
    }
    assert new["vectors"].pop("code") is None and new["vectors"].pop("deleted") is None
    edited = ("parent", "edit", "card_version", "next_row")
    assert {name: new.pop(name) for name in edited} == dict.fromkeys(edited)
    assert new["search"].pop("target") == 0.99
    stage = ("prefix", "queries", "recall")
    assert {name: new["search"].pop(name) for name in stage} == dict.fromkeys(stage)
    assert keys(new) == keys(old)
    for key in ("format", "method", "task", "checkpoints", "blocks", "sequential"):
        assert new[key] == old[key]
    assert new["vectors"]["parts"] == old["vectors"]["parts"]


def test_a_golden_index_with_random_matrices_opens_and_draws_them_again() -> None:
    """Opening compares the heads of the matrices and the vectors that they make with those that are stored."""
    ranking = Ask.open(GOLDEN.with_name("format-1-rank1"), task).query(Question(KnownExample("test", "0"), k=6))
    assert len(ranking.proponents) == 6 and not ranking.exact


def test_a_golden_index_is_never_written_over() -> None:
    before = {path: path.read_bytes() for path in GOLDEN.rglob("*") if path.is_file()}
    assert sum(map(len, before.values())) < 20_000
    with pytest.raises(FileExistsError, match="format-1"):
        make(GOLDEN)
    assert {path: path.read_bytes() for path in GOLDEN.rglob("*") if path.is_file()} == before
