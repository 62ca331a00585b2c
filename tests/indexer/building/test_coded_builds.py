"""Builds with coded rows: repeatable, within their bytes, told stage by stage, and answered from."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from indexer import Ask, BuildSpec, KnownExample, Question, Task, build
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import read_weights
from indexer.errors import TooLargeError
from indexer.index.versions import is_index
from indexer.task import read_rows
from tests.chosen import chosen
from tests.reference import exact_self_influence
from tests.tiny import cross_entropy, tiny_model

ETA = 0.1  # of all three checkpoints of the tiny run
FLOAT32 = 1e-4  # relative: squares of float32 gradients, some of nearly certain examples
CODED: list[dict[str, Any]] = [{"name": name, "seed": 0} for name in ("pca", "rank1", "gaussian", "countsketch")]


@pytest.fixture
def small(task: Task) -> Task:
    """The first 50 digits, and 10 to ask about."""
    assert task.test is not None
    return replace(task, train=chosen(task.train, range(50)), test=chosen(task.test, range(10)))


@pytest.fixture
def spec(run: Path) -> BuildSpec:
    return BuildSpec(run, bytes_per_example=64, batch_size=16)


@pytest.mark.parametrize("projection", [CODED[0], CODED[3], {"name": "identity"}], ids=lambda of: of["name"])
def test_one_spec_gives_one_version(small: Task, spec: BuildSpec, tmp_path: Path, projection: dict[str, Any]) -> None:
    bytes = None if projection["name"] == "identity" else 64
    spec = replace(spec, projection=projection, bytes_per_example=bytes)
    one, other = (build(small, spec, tmp_path / name) for name in ("one", "other"))
    assert one.manifest == other.manifest
    assert one.version == other.version


@pytest.mark.parametrize("projection", CODED, ids=lambda of: of["name"])
@pytest.mark.parametrize("bytes", [16, 101, 512])
def test_a_row_never_takes_more_than_the_bytes_asked_for(
    small: Task, spec: BuildSpec, tmp_path: Path, projection: dict[str, Any], bytes: int
) -> None:
    version = build(small, replace(spec, projection=projection, bytes_per_example=bytes), tmp_path / "index")
    vectors = version.manifest.vectors
    assert vectors.dtype == "coded" and vectors.code is not None
    assert 4 < vectors.code.row_bytes <= bytes
    assert sum(version.objects.path(shard.object).stat().st_size for shard in vectors.shards) <= 50 * bytes
    ask = Ask.open(version.folder, small)
    assert len(ask.query(Question(KnownExample("test", "3"), k=5)).opponents) == 5
    ask.close()


def test_progress_tells_the_stages_in_order(small: Task, spec: BuildSpec, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    spec = replace(spec, projection={"name": "pca", "sample": 20})
    build(small, spec, tmp_path / "index", lambda *stage: told.append(stage))
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == ["bases", "vectors", "examples"]
    for stage, total in (("bases", 2 * 3 * 20), ("vectors", 50), ("examples", 60)):
        counts = [(done, of) for name, done, of in told if name == stage]
        assert [done for done, _ in counts] == sorted({done for done, _ in counts})
        assert {of for _, of in counts} == {total} and counts[-1] == (total, total)


def test_a_build_that_dies_over_its_bases_leaves_nothing(small: Task, spec: BuildSpec, tmp_path: Path) -> None:
    def dies(now: str, done: int, total: int) -> None:
        if now == "bases":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(small, spec, tmp_path / "index", dies)
    assert not is_index(tmp_path / "index") and not list(tmp_path.rglob("*"))


def test_self_influence_is_exact_however_few_the_bytes(small: Task, spec: BuildSpec, run: Path, tmp_path: Path) -> None:
    ask = Ask.open(build(small, replace(spec, bytes_per_example=16), tmp_path / "index").folder, small)
    states = [read_weights(checkpoint.path) for checkpoint in open_run(run).checkpoints]
    model = (tiny_model(), cross_entropy)
    expected = exact_self_influence(model, states, [ETA] * 3, read_rows(small.train, range(50)))
    found = [example.self_influence for example in ask.index.examples.listing("train", start=0, count=50)]
    for one, other in zip(found, expected.tolist(), strict=True):
        assert one == pytest.approx(other, rel=FLOAT32)
    ask.close()


def test_bytes_that_do_not_fit_are_refused_before_the_sample_is_read(
    task: Task, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=300 * 512))
    told: list[str] = []
    with pytest.raises(TooLargeError, match=r"300 rows takes .* MiB of disk while it is built; 0\.1 MiB"):
        build(task, BuildSpec(run), tmp_path / "index", lambda stage, done, total: told.append(stage))
    assert told == [] and not (tmp_path / "index").exists()
