"""An index card of made-up figures, and an index that has it."""

from pathlib import Path
from typing import Any

from indexer.index.card import CardEntry
from indexer.index.versions import commit, open_version

RECALL = {
    "recall_at_10": 0.9124,
    "recall_at_10_interval": [0.8812, 0.94],
    "recall_at_100": 0.95,
    "recall_at_100_interval": [0.9375, 0.9625],
}
DOCUMENT: dict[str, Any] = {
    "queries": 50,
    "source": "test",
    "rows": 4500,
    "confidence": 0.95,
    "proponents": RECALL,
    "opponents": RECALL | {"recall_at_10": 0.9375, "recall_at_10_interval": None},
    "pearson": 0.99612,
    "pearson_interval": [0.9951, 0.9972],
    "spearman": 0.875,
    "spearman_interval": [0.75, 0.9375],
    "error": [{"share": 0.5, "of_rms": 0.0125}, {"share": 1.0, "of_rms": 0.5}],
    "reference": {"shares": [0.0, 0.25, 0.75, 1.0], "scores": [-8.0, -0.5, 0.5, 8.0]},
    "bytes_per_example": 257.5,
    "basis_bytes": 123_456,
}


def card(**changes: Any) -> CardEntry:
    """The card, some of its figures being others."""
    return CardEntry.model_validate(DOCUMENT | changes)


def give_card(folder: Path, entry: CardEntry | None) -> None:
    """Make a version of the index in a folder that has this card, or none, the active one."""
    commit(folder, open_version(folder).manifest.model_copy(update={"card": entry}))
