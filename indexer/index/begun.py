"""The files of a build that was begun in the folder of an index, `<index>/building/`: which are its own.

What else lies there is somebody else's, and stays. Beside an active version they are left over: the build came to its
commit, and was stopped before its end.
"""

from contextlib import suppress
from pathlib import Path

from indexer.atomic import TEMPORARY, remove
from indexer.index.objects import Objects

FOLDER = "building"
PLAN = "plan"
FIT = "fit"
SHARD = "shard-"


def journal_files(index: Path) -> list[Path]:
    """Return the files of a build's journal, the plan last: what is left without the others is still a journal."""
    folder = index / FOLDER
    notes = [path for pattern in (f"{FIT}.json", f"{SHARD}*.json", f"{TEMPORARY}*") for path in folder.glob(pattern)]
    return [*Objects(folder / "objects").unnamed(set()), *sorted(notes), *folder.glob(f"{PLAN}.json")]


def remove_journal(index: Path) -> None:
    """Remove a build's journal, in that order, and its folders if nothing else is in them."""
    for path in journal_files(index):
        remove(path)
    for folder in (index / FOLDER / "objects", index / FOLDER):
        with suppress(OSError):  # something else is in it, or there is none
            folder.rmdir()
