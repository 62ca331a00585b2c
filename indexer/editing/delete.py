"""Delete: tombstones for rows that stay where they are, and are never answered again. No task, no model."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from indexer.editing.edit import deleted_rows, editing, verified_examples
from indexer.editing.named import named, once, without
from indexer.errors import BuildError
from indexer.index.versions import IndexVersion


def delete(folder: str | Path, ids: Iterable[str]) -> IndexVersion:
    """Make a version without some training examples, and return it; an id that is given twice counts once.

    What the index keeps of them goes with `compact`, and with `prune` for good.

    Raises:
        UnknownIndexError: the folder holds no finished index.
        CorruptIndexError: a file of the index has changed.
        UnknownExampleError: an id is of no training example, or of a deleted one; none is deleted then.
        BuildError: no id was given, none would be left, or another edit is at work.
    """
    wanted = once(ids, "delete")
    with editing(folder, "delete") as edit:
        before, vectors = edit.before, edit.before.manifest.vectors
        with closing(verified_examples(before)) as examples:
            positions = [example.position for example in named(examples, wanted)]
        if len(positions) == before.manifest.rows:
            raise BuildError(
                f"delete: these are all {len(positions):,} training examples of index {before.name!r}; leave at least "
                "one, or remove the folder"
            )
        tombstones = without(before.objects, deleted_rows(before), positions)
        return edit.commit(vectors=vectors.model_copy(update={"deleted": tombstones}))
