"""The files of a begun build: its own go, the plan last, and what is somebody else's stays."""

from pathlib import Path

from indexer.index.begun import journal_files, remove_journal

OWN = [f"objects/{'0' * 64}", "objects/.new-x", ".new-y", "fit.json", "shard-00003.json", "plan.json"]


def test_own_files_are_removed_and_others_stay(tmp_path: Path) -> None:
    assert journal_files(tmp_path) == []
    remove_journal(tmp_path)
    folder = tmp_path / "building"
    (folder / "objects").mkdir(parents=True)
    for name in (*OWN, "notes", "objects/notes"):
        (folder / name).touch()
    files = journal_files(tmp_path)
    assert {str(path.relative_to(folder)) for path in files} == set(OWN) and files[-1].name == "plan.json"
    remove_journal(tmp_path)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == ["notes", "objects", "objects/notes"]
    (folder / "notes").unlink()
    (folder / "objects" / "notes").unlink()
    remove_journal(tmp_path)
    assert list(tmp_path.iterdir()) == []
