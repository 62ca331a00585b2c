"""The first stage, fitted again without a model, with the queries and to the recall that the index keeps."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from indexer import append, compact, delete
from indexer.editing.edit import verified_store
from indexer.editing.first_stage import fitted_again
from indexer.editing.rebuild_search import rebuild_search
from indexer.errors import CorruptIndexError
from indexer.index.manifest import SearchEntry
from indexer.index.search import fit
from indexer.index.search.flat import FlatSearch
from indexer.index.search.opening import open_search
from indexer.index.store import open_store
from indexer.index.versions import IndexVersion, commit, open_version
from tests.indexer.editing.small import ROWS, small_task

QUERIES = np.random.default_rng(0).standard_normal((6, 200)).astype(np.float32)


@pytest.fixture
def staged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> IndexVersion:
    """The small index with a stage and queries, as only large ones have them."""
    monkeypatch.setattr(fit, "FLAT_UP_TO", 0)
    version = open_version(folder)
    store = open_store(version.objects, version.manifest.vectors)
    search = fit.fit_search(store, QUERIES[:, : store.width], version.objects, target=0.5)
    assert search.kind == "prefix"
    return commit(folder, version.manifest.model_copy(update={"search": search}))


def covered(search: SearchEntry) -> int:
    """How many rows a stage was fitted on."""
    assert search.prefix is not None
    return search.prefix.vectors.rows


def check_answers(version: IndexVersion) -> None:
    """A stage answers as brute force does, whatever it covers."""
    manifest = version.manifest
    store = open_store(version.objects, manifest.vectors)
    queries = QUERIES[:, : store.width]
    found = open_search(version.objects, manifest.search, store, None).search(queries, 3)
    for one, true in zip(found, FlatSearch(store).search(queries, 3), strict=True):
        assert (one.proponents[:3], one.opponents[:3]) == (true.proponents[:3], true.opponents[:3])


def test_appended_and_deleted_rows_leave_the_stage_until_it_is_rebuilt(staged: IndexVersion) -> None:
    append(staged.folder, small_task())
    edited = delete(staged.folder, ["4"])
    assert edited.manifest.search == staged.manifest.search
    check_answers(edited)
    rebuilt = rebuild_search(staged.folder)
    assert (covered(staged.manifest.search), covered(rebuilt.manifest.search)) == (12, ROWS)
    assert (rebuilt.manifest.edit, rebuilt.manifest.vectors) == ("rebuild-search", edited.manifest.vectors)
    assert rebuilt.manifest.search.queries == staged.manifest.search.queries
    assert rebuilt.manifest.search.target == 0.5
    check_answers(rebuilt)


def test_compacting_fits_the_stage_to_the_new_positions(staged: IndexVersion) -> None:
    delete(staged.folder, ["0", "1"])
    compacted = compact(staged.folder)
    assert covered(compacted.manifest.search) == 10
    check_answers(compacted)
    assert fitted_again(compacted, verified_store(compacted)) == compacted.manifest.search


def test_changed_queries_are_not_used(staged: IndexVersion) -> None:
    ref = staged.manifest.search.queries
    assert ref is not None
    path = staged.objects.path(ref)
    data = safetensors.numpy.load(path.read_bytes())
    path.write_bytes(safetensors.numpy.save({"queries": data["queries"] + 1}))
    with pytest.raises(CorruptIndexError, match=r"queries of the search: the bytes of .* have changed"):
        fitted_again(staged, verified_store(staged))
