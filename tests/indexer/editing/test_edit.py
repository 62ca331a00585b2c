"""What every edit keeps: one writer, a commit as the only effect, and a version that the same edit makes again."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from indexer import Ask, KnownExample, Question, append, compact, delete, relabel
from indexer.editing.edit import deleted_rows, editing, verified_examples
from indexer.errors import BuildError, CorruptIndexError, DiskFullError, UnknownIndexError
from indexer.index.lock import writing_in
from indexer.index.versions import IndexVersion, commit, open_version, versions_of
from tests.cards import card, give_card
from tests.crashes import Crash, Stops, crash, full
from tests.indexer.editing.small import BUILT, small_task

Edits = dict[str, Callable[[Path], IndexVersion]]


def relabelled(folder: Path) -> IndexVersion:
    example = verified_examples(open_version(folder)).find("train", "5")
    return relabel(folder, small_task(), {"5": "star" if example.label == "round" else "round"})


EDITS: Edits = {
    "append": lambda folder: append(folder, small_task(BUILT + 2)),
    "delete": lambda folder: delete(folder, ["3", "7"]),
    "relabel": relabelled,
    "compact": compact,
}


def prepared(folder: Path, edit: str) -> IndexVersion:
    """Give compact something to do, and return the version to start from."""
    return delete(folder, ["1"]) if edit == "compact" else open_version(folder)


@pytest.mark.parametrize("edit", EDITS)
def test_a_new_version_says_where_it_comes_from_and_shares_what_is_the_same(folder: Path, edit: str) -> None:
    before = prepared(folder, edit)
    after = EDITS[edit](folder)
    assert (after.manifest.parent, after.manifest.edit) == (before.version, edit)
    assert open_version(folder) == after
    assert open_version(folder, before.version) == before
    changed = {"parent", "edit", "vectors", "examples", "next_row", "probe"}
    for name, value in dict(before.manifest).items():
        assert name in changed or getattr(after.manifest, name) == value, name
    old, new = before.manifest.objects(), after.manifest.objects()
    assert all(new[role] == old[role] for role in old if role.startswith(("checkpoint", "code", "fitted")))
    if edit != "compact":
        assert new["vectors, shard 1"] == old["vectors, shard 1"] and new["examples"] == old["examples"]
    assert [role for role, _ in after.verify()] == list(new)


@pytest.mark.parametrize("edit", EDITS)
def test_the_same_edit_of_the_same_version_is_the_same_version(new_copy: Callable[[str], Path], edit: str) -> None:
    first, second = new_copy("first"), new_copy("second")
    prepared(first, edit), prepared(second, edit)
    assert EDITS[edit](first).fingerprint == EDITS[edit](second).fingerprint


@pytest.mark.parametrize("edit", ["delete", "relabel", "compact"])  # a relabelling does all that an append does
def test_a_killed_edit_leaves_the_version_before(
    new_copy: Callable[[str], Path], edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each file gets its name; the last of them says which version is the active one."""
    whole, folder = new_copy("whole"), new_copy("killed")
    before = prepared(whole, edit)
    prepared(folder, edit)
    with monkeypatch.context() as patch:
        stops = Stops(10**6, crash, only=("replace",)).install(patch)
        after = EDITS[edit](whole)
    assert stops.seen > 2
    for step in range(1, stops.seen + 1):
        with monkeypatch.context() as patch, pytest.raises(Crash):
            Stops(step, crash, only=("replace",)).install(patch)
            EDITS[edit](folder)
        left = open_version(folder)
        assert left.fingerprint == before.fingerprint
        assert [role for role, _ in left.verify()] == list(left.manifest.objects())
    with monkeypatch.context() as patch, pytest.raises(Crash):
        Stops(stops.seen, crash, only=("replace",), after=True).install(patch)
        EDITS[edit](folder)
    assert open_version(folder).fingerprint == after.fingerprint
    assert [role for role, _ in after.verify()] == list(after.manifest.objects())


@pytest.mark.parametrize("edit", EDITS)
def test_a_full_disk_is_named_and_leaves_the_version_before(
    folder: Path, edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prepared(folder, edit)
    with (
        monkeypatch.context() as patch,
        pytest.raises(DiskFullError, match=r"is full .* nothing was changed: make r"),
    ):
        Stops(1, full).install(patch)
        EDITS[edit](folder)
    assert open_version(folder) == before
    assert EDITS[edit](folder).manifest.parent == before.version


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full to write to")
def test_a_disk_that_is_full_after_the_commit_takes_nothing_back(folder: Path) -> None:
    (folder / "log.jsonl").unlink()
    (folder / "log.jsonl").symlink_to("/dev/full")
    before = open_version(folder)
    with pytest.raises(DiskFullError, match=r"is full .* the new version is committed and active all the same"):
        delete(folder, ["3"])
    assert open_version(folder).manifest.parent == before.version


@pytest.mark.parametrize("edit", EDITS)
def test_edits_exclude_each_other(folder: Path, edit: str) -> None:
    before = prepared(folder, edit)
    with writing_in(folder), pytest.raises(BuildError, match=r"another build or edit is at work in '.*index'; wait"):
        EDITS[edit](folder)
    assert open_version(folder) == before


@pytest.mark.parametrize("edit", EDITS)
def test_a_folder_without_an_index_stays_as_it_is(tmp_path: Path, edit: str) -> None:
    with pytest.raises(UnknownIndexError, match="holds no finished index"):
        EDITS[edit](tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("edit", ["relabel", "compact"])
def test_who_asks_the_version_before_notices_nothing(folder: Path, edit: str) -> None:
    prepared(folder, edit)
    ask, question = Ask.open(folder, small_task()), Question(KnownExample("test", "1"), k=BUILT)
    before = ask.query(question)
    EDITS[edit](folder)
    again = Ask.open(folder, small_task(), before.version).query(question)
    for answer in (ask.query(question), again):
        assert (answer.proponents, answer.opponents, answer.version) == (
            before.proponents,
            before.opponents,
            before.version,
        )


def test_an_edit_may_be_made_of_an_earlier_version_again(folder: Path) -> None:
    first = open_version(folder)
    second = delete(folder, ["1"])
    commit(folder, first.manifest)
    third = delete(folder, ["2"])
    assert third.manifest.parent == first.version
    assert {version.version for version in versions_of(folder)} == {each.version for each in (first, second, third)}


def test_the_log_has_a_line_for_each_edit(folder: Path) -> None:
    first = open_version(folder)
    second = delete(folder, ["1"])
    line = orjson.loads((folder / "log.jsonl").read_bytes().splitlines()[-1])
    assert (line["delete"], line["of"]) == (second.version, first.version)
    assert line["at"].endswith("Z") and line["seconds"] >= 0


def test_the_card_stays_with_the_version_that_it_was_measured_on(folder: Path) -> None:
    give_card(folder, card())
    measured, once, twice = open_version(folder), delete(folder, ["1"]), delete(folder, ["2"])
    assert [version.manifest.card_version for version in (measured, once, twice)] == [None, *[measured.version] * 2]
    assert twice.manifest.card == card()


@pytest.mark.parametrize("role", ["examples", "tombstones"])
def test_nothing_is_copied_from_a_changed_file(folder: Path, role: str) -> None:
    version = delete(folder, ["1", "4"])
    path = version.objects.path(version.manifest.objects()[role])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for edit in ("delete", "compact"):
        with pytest.raises(CorruptIndexError, match=f"{role}: the bytes of .* have changed"):
            EDITS[edit](folder)


def test_an_edit_that_commits_nothing_changes_nothing(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with editing(folder, "delete") as edit:
        assert edit.before == open_version(folder)
        assert deleted_rows(edit.before).tolist() == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
