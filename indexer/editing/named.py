"""Training examples by their ids, and the end of rows."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64

from indexer.errors import BuildError, UnknownExampleError
from indexer.index import manifest as m
from indexer.index.examples import Example, Examples
from indexer.index.objects import Objects
from indexer.index.tombstones import write_tombstones

_SHOWN = 5


def named(examples: Examples, ids: Sequence[str]) -> list[Example]:
    """Return the training examples that have these ids, by position.

    Raises:
        UnknownExampleError: some are of none that the index answers with; the first are named.
    """
    found = examples.at(examples.positions(None, ids, (), (None, None)).tolist())
    unknown = set(ids).difference(example.id for example in found)
    if unknown:
        first = [id for id in ids if id in unknown]
        raise UnknownExampleError(
            f"{len(first):,} of {len(ids):,} ids are of no training example of the index, or of a deleted one: "
            f"{listed(first)}; nothing was changed"
        )
    return found


def listed(ids: Sequence[str]) -> str:
    """Return the first of some ids, for people.

    >>> listed(["3", "5"]), listed([str(id) for id in range(9)])
    ("'3', '5'", "'0', '1', '2', '3', '4', …")
    """
    return ", ".join([*map(repr, ids[:_SHOWN]), *(["…"] if len(ids) > _SHOWN else [])])


def once(ids: Iterable[str], edit: m.Edit) -> list[str]:
    """Return ids in their order, each once.

    Raises:
        BuildError: there is none, or the ids are one string.
    """
    found = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))
    if isinstance(ids, str) or not found:
        raise BuildError(f"{edit}: expected ids of training examples, such as ['17', '204'], found {ids!r}")
    return found


def without(objects: Objects, deleted: Int64[np.ndarray, " t"], positions: Iterable[int | None]) -> m.TombstonesEntry:
    """Write tombstones of the rows that are deleted already and of those at some positions."""
    return write_tombstones(objects, np.union1d(deleted, np.fromiter(positions, np.int64)))
