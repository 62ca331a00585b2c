"""Rebuild-search: the first stage of the search, fitted again to the rows that the index has now. No task, no model."""

from pathlib import Path

from indexer.editing.edit import editing, verified_store
from indexer.editing.first_stage import fitted_again
from indexer.errors import BuildError
from indexer.index.versions import IndexVersion


def rebuild_search(folder: str | Path) -> IndexVersion:
    """Make a version whose search is fitted to all its rows, and return it; answers of an exact search stay.

    Raises:
        UnknownIndexError: the folder holds no finished index.
        CorruptIndexError: a file of the index has changed.
        BuildError: the search is the one that would be fitted, or another edit is at work.
    """
    with editing(folder, "rebuild-search") as edit:
        before = edit.before.manifest
        search = fitted_again(edit.before, verified_store(edit.before))
        if search == before.search:
            raise BuildError(
                f"rebuild-search: the search of index {edit.before.name!r} ({search.kind!r}) is the one that fits its "
                "rows already; there is nothing to rebuild"
            )
        return edit.commit(search=search)
