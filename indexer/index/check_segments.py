"""Segments of examples held against the manifest: every example counted, every position where it should be.

The training examples of a segment have the positions after those of the segment before it, and no other example has
one. So every position is that of one training example, deleted ones included.
"""

from collections.abc import Mapping, Sequence

from indexer.errors import CorruptIndexError
from indexer.index.segments import Segments

_COUNTS = "SELECT split, COUNT(*), COUNT(position), MIN(position), MAX(position) FROM s{0}.example GROUP BY split"
# the later segment is the outer loop: appended rows are few, and the earlier one is read along its primary key
_TWICE = """
SELECT late.split, late.id FROM s{1}.example AS late CROSS JOIN s{0}.example AS early USING (split, id)
WHERE (late.position IS NULL OR late.position NOT IN (SELECT position FROM main.deleted))
AND (early.position IS NULL OR early.position NOT IN (SELECT position FROM main.deleted)) LIMIT 1
"""


def check_segments(segments: Segments, splits: Sequence[Mapping[str, int]], rows: int) -> None:
    """Compare segments with what the manifest says: the examples of each by split, and the rows of the vectors.

    Raises:
        CorruptIndexError: they differ, or two examples that are not deleted have the same split and id.
    """
    if len(splits) != segments.count:
        raise CorruptIndexError(
            f"the table of examples has {segments.count} segments; the manifest says {len(splits)}: rebuild the index"
        )
    start = 0
    for number, counts in enumerate(splits):
        start = _check_counts(segments, number, counts, start)
    if start != rows:
        raise CorruptIndexError(
            f"the table of examples holds {start:,} positions; the manifest says {rows:,}: rebuild the index"
        )
    for late in range(1, segments.count):
        for early in range(late):
            _check_ids(segments, early, late)


def _check_counts(segments: Segments, number: int, counts: Mapping[str, int], start: int) -> int:
    """Check one segment, and return where the positions of the next one start.

    Raises:
        CorruptIndexError: it holds other examples or positions.
    """
    stop = start + counts.get("train", 0)
    expected: dict[str, tuple[int, ...]] = {
        split: (count, count, start, stop - 1) if split == "train" else (count, 0)
        for split, count in counts.items()
        if count
    }
    found: dict[str, tuple[int, ...]] = {
        split: tuple(value for value in values if value is not None)
        for split, *values in segments.all(_COUNTS.format(number))
    }
    if found != expected:
        raise CorruptIndexError(
            f"segment {number + 1} of the table of examples holds {_words(found)}; the manifest says "
            f"{_words(expected)}: rebuild the index"
        )
    return stop


def _check_ids(segments: Segments, early: int, late: int) -> None:
    """Refuse an example that is in two segments and deleted in neither.

    Raises:
        CorruptIndexError: there is one.
    """
    twice = segments.all(_TWICE.format(early, late))
    if twice:
        split, id = twice[0]
        raise CorruptIndexError(
            f"segment {late + 1} of the table of examples holds example {id!r} of split {split!r}, which segment "
            f"{early + 1} holds too, and neither is deleted; rebuild the index"
        )


def _words(found: Mapping[str, Sequence[int]]) -> str:
    """Say how many examples there are by split, and which positions they have."""
    said = [
        f"{values[0]:,} of {split!r} with {values[1]:,} positions"
        + (f" from {values[2]:,} to {values[3]:,}" if values[1] else "")
        for split, values in sorted(found.items())
    ]
    return ", ".join(said) or "nothing"
