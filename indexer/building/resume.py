"""A build's own folder while it runs: alone in it, with the journal of a build that was stopped there, or a new one.

What a stopped build was begun with is compared with what this one is given, value by value; the first difference is
named and refused. Nothing that was begun is replaced unless it is asked for.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from indexer.atomic import make_folder, remove, remove_temporary
from indexer.building.begin import Beginning
from indexer.building.entries import state_file
from indexer.building.journal import Journal, Kept, PlanRecord, whole
from indexer.errors import BuildError
from indexer.index.lock import remove_lock, writing_in
from indexer.index.manifest import Plan
from indexer.index.objects import Objects
from indexer.index.versions import is_index, is_version_name, refuse_existing, versions_of

Place = tuple[str | int, ...]


def plan_of(folder: Path, *, restart: bool) -> Plan | None:
    """Return the plan that a build in the folder must go on with, or None for a new one.

    Raises:
        BuildError: the folder holds an index, active or not, or is a file.
    """
    kept = None if restart else Journal(folder).plan()
    if kept is None:
        refuse_existing(folder)
        return None
    return kept.record.plan


@contextmanager
def journal_in(folder: Path, beginning: Beginning, *, restart: bool) -> Iterator[tuple[Journal, Kept[PlanRecord]]]:
    """Hold the folder of a build, with its journal; one that was stopped before its fit leaves nothing behind.

    Raises:
        BuildError: another build is at work in the folder, it holds an index, or what it was begun with differs.
    """
    with writing_in(folder):
        remove_temporary(folder)
        journal = Journal(folder)
        stored = None if restart else journal.plan()
        if stored is None or _lost(folder):
            refuse_existing(folder)
        else:
            refuse_other(folder, stored.record, beginning.record)
        fresh = restart or not journal.folder.is_dir()
        if fresh:
            _clear(journal)
        try:
            kept = stored or journal.write_plan(beginning.record)
            _keep_files(journal.objects, beginning)
            yield journal, kept
        except BaseException:
            if fresh and not (journal.folder / "fit.json").is_file():
                _clear(journal)
                remove_lock(folder)
            raise


def refuse_other(folder: Path, before: PlanRecord, now: PlanRecord) -> None:
    """Refuse to go on with anything else than what a build was begun with.

    Raises:
        BuildError: with the first difference, and both values.
    """
    then, here = before.model_dump(mode="json"), now.model_dump(mode="json")
    difference = next(_differences(then, here, ()), None)
    if difference is not None:
        place, was, found = difference
        raise BuildError(
            f"the build that was begun in {str(folder)!r} cannot go on: {_name(place, before)} was {_shown(was)}, and "
            f"is {_shown(found)} now. Give the same again, or begin anew with `--restart` (restart=True)"
        )


def sweep(objects: Objects, names: Sequence[str]) -> None:
    """Remove all objects but the named ones: what a stopped build left, before the first version is committed."""
    for path in objects.unnamed(set(names)):
        remove(path)
    versions = objects.folder.parent / "versions"
    for path in list(versions.glob("*/")):
        if is_version_name(path.name):
            remove(path)
    _remove_if_empty(versions)


def _lost(folder: Path) -> bool:
    """Say whether the folder holds an index that was edited, and has lost which version is active.

    A journal beside it is left over from a build that was stopped after its commit, and none to go on with.
    """
    return not is_index(folder) and any(version.manifest.parent is not None for version in versions_of(folder))


def _clear(journal: Journal) -> None:
    journal.remove()
    for path in journal.objects.unnamed(set()):
        remove(path)
    _remove_if_empty(journal.objects.folder)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # something else is in it, or there is none
        folder.rmdir()


def _keep_files(objects: Objects, beginning: Beginning) -> None:
    """Store weights and probe outputs, where they are not there yet."""
    make_folder(objects.folder)
    record = beginning.record
    for entry, state in zip(record.checkpoints, beginning.source.weights.files, strict=True):
        if not whole(objects, entry.object):
            objects.add(state_file(state))
    if not whole(objects, record.probe.object):
        objects.add(beginning.probe)


def _differences(before: Any, now: Any, place: Place) -> Iterator[tuple[Place, Any, Any]]:
    """Yield the places where two JSON values differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(key), now.get(key), (*place, key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _differences(one, other, (*place, i))
    elif before != now:
        yield place, before, now


def _name(place: Place, record: PlanRecord) -> str:
    """Return what people call a place of the record."""
    match place:
        case ("checkpoints", int(i), "object", *_):
            return f"the weights of checkpoint {i + 1} ({record.checkpoints[i].file!r}), by their hash,"
        case ("checkpoints", int(i), *rest):
            return f"{'.'.join(map(str, rest))} of checkpoint {i + 1}"
        case ("checkpoints", *_):
            return "the list of checkpoints"
        case ("blocks", int(i), *rest):
            return f"{'.'.join(map(str, rest))} of parameter block {i + 1} ({record.blocks[i].name!r})"
        case ("blocks", *_):
            return "the list of parameter blocks"
        case ("probe", *_):
            return "what the model and the loss say of a few training examples, by its hash,"
        case ("rows", split, *_):
            return f"the number of {split} examples"
        case ("plan", "versions", package, *_):
            return f"the version of {package}"
        case ("machine", *_):
            return "the processor"
        case (_, *rest):
            return ".".join(map(str, rest))
    return "the record"


def _shown(value: Any) -> str:
    """Return a value in few words."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"of {len(value)}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
