"""Rebuild-search: a version with another search and nothing else, or none where the search is that already."""

from pathlib import Path

import pytest

from indexer import append
from indexer.editing.rebuild_search import rebuild_search
from indexer.errors import BuildError, CorruptIndexError
from indexer.index.search import fit
from indexer.index.versions import open_version
from tests.indexer.editing.small import small_task


def test_a_search_that_reads_all_rows_has_nothing_to_rebuild(folder: Path) -> None:
    append(folder, small_task())
    before = open_version(folder)
    with pytest.raises(
        BuildError, match=r"the search of index 'index' \('flat'\) is the one that fits its rows already"
    ):
        rebuild_search(folder)
    assert open_version(folder) == before


def test_an_index_that_has_grown_gets_a_stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = append(folder, small_task())
    monkeypatch.setattr(fit, "FLAT_UP_TO", 20)
    after = rebuild_search(folder)
    assert (after.manifest.search.kind, after.manifest.edit) == ("prefix", "rebuild-search")
    changed = {name for name, value in dict(after.manifest).items() if value != getattr(before.manifest, name)}
    assert changed == {"search", "parent", "edit"}
    with pytest.raises(BuildError, match="there is nothing to rebuild"):
        rebuild_search(folder)


def test_a_stage_is_not_fitted_to_changed_vectors(folder: Path) -> None:
    version = open_version(folder)
    path = version.objects.path(version.manifest.vectors.shards[0].object)
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptIndexError, match=r"vectors, shard 1: the bytes of .* have changed"):
        rebuild_search(folder)
