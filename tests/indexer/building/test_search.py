"""The search of a build: few rows are scanned, more get a prefix that answers what a scan answers, and is measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from indexer import Ask, BuildSpec, KnownExample, Question, Task, build
from indexer.building import search
from indexer.index.search import flat as search_flat
from indexer.index.search.fit import FLAT_UP_TO, read_queries
from indexer.index.versions import IndexVersion

PCA = {"name": "pca", "sample": 100}


@pytest.fixture
def built(task: Task, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IndexVersion:
    """An index whose 300 rows count as many."""
    monkeypatch.setattr("indexer.index.search.fit.FLAT_UP_TO", 100)
    monkeypatch.setattr("indexer.index.search.cascade.EXACT_BELOW", 5)
    monkeypatch.setattr(search, "QUERIES", 12)
    spec, told = BuildSpec(run, projection=PCA, batch_size=64, card_queries=0), []
    version = build(task, spec, tmp_path / "many", lambda *stage: told.append(stage))
    assert [stage for stage in told if stage[0] == "search"] == [("search", done, 2) for done in range(3)]
    return version


def test_few_rows_are_scanned_and_need_no_file(index_folder: Path, ask: Ask) -> None:
    entry = ask.index.version.manifest.search
    assert (entry.kind, entry.objects()) == ("flat", {})


def test_more_rows_get_a_prefix_that_is_measured(built: IndexVersion) -> None:
    entry = built.manifest.search
    assert entry.kind == "prefix" and entry.prefix is not None and entry.recall is not None
    assert entry.prefix.vectors.rows == 300
    assert (entry.target, entry.recall.k, entry.recall.queries, entry.recall.source) == (0.99, 10, 6, "held-out")
    assert entry.recall.proponents >= 0.99 and entry.recall.opponents >= 0.99
    queries = read_queries(built.objects, entry, built.manifest.vectors.width)
    assert queries is not None and len(queries) == 12
    assert set(entry.objects().values()) <= set(built.manifest.objects().values())


def test_it_answers_what_a_scan_answers(built: IndexVersion, task: Task, tmp_path: Path) -> None:
    by_prefix = Ask.open(built.folder, task)
    flat = Ask(task, replace(by_prefix.index, search=_scan(by_prefix)))
    for id in range(0, 100, 7):
        question = Question(KnownExample("test", str(id)), k=3)
        found, scanned = by_prefix.query(question), flat.query(question)
        assert (found.proponents, found.opponents) == (scanned.proponents, scanned.opponents)
        assert found.exhaustive


def _scan(ask: Ask) -> search_flat.FlatSearch:
    return search_flat.FlatSearch(ask.index.store, ask.index.norms)


def test_what_it_takes_grows_with_rows(built: IndexVersion) -> None:
    assert search.search_bytes(FLAT_UP_TO, 512) == search.search_seconds(FLAT_UP_TO, 0.02) == 0
    assert 148e6 < search.search_bytes(1_000_000, 512) < 160e6
    assert search.search_memory(FLAT_UP_TO, 512) == 0
    assert 180e6 < search.search_memory(1_000_000, 512) < 500e6  # a fit of a million rows of 1,505 numbers took 258e6
    assert 50 < search.search_seconds(1_000_000, 0.02) < 100
