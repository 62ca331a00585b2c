"""The folder of a build: what is in it that is not the build's, who else is at work there, and how a build ends."""

from collections.abc import Callable
from pathlib import Path

import pytest

from indexer import BuildSpec, Task, build, delete
from indexer.building.begin import begin
from indexer.building.journal import Journal
from indexer.errors import BuildError, TaskError
from indexer.index.lock import writing_in
from indexer.index.versions import activate, is_index, open_version, versions_of
from tests.stopped import stop

pytestmark = pytest.mark.usefixtures("small_shards")


def stop_at(name: str, run: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until a function is called, and no further."""

    def stop_here(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(name, stop_here)
        with pytest.raises(KeyboardInterrupt):
            run()


def test_a_folder_of_other_things_keeps_them(micro: Task, spec: BuildSpec, tmp_path: Path) -> None:
    """Whether a build comes to its end there, is stopped before its fit, or is begun anew."""
    folder = tmp_path / "index"
    own = ["objects/notes", "versions/notes", "versions/1/notes", "building/notes", "building/objects/notes", ".new/x"]
    for name in [*own, "data/.new-idea"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    (folder / "objects" / ("0" * 64)).touch()

    def dies(stage: str, done: int, total: int) -> None:
        raise TaskError("at once")

    for restart in (False, True):
        with pytest.raises(TaskError, match="at once"):
            build(micro, spec, folder, dies, restart=restart)
    stop(micro, spec, folder)
    version = build(micro, spec, folder)
    assert all((folder / name).read_text() == "mine" for name in [*own, "data/.new-idea"])
    named = {ref.sha256 for ref in version.manifest.objects().values()}
    assert {path.name for path in (folder / "objects").iterdir()} == named | {"notes"}
    assert sorted(path.name for path in (folder / "building").iterdir()) == ["notes", "objects"]


@pytest.mark.parametrize("restart", [False, True])
def test_versions_of_which_none_is_active_are_not_built_over(
    micro: Task, spec: BuildSpec, tmp_path: Path, restart: bool
) -> None:
    folder = build(micro, spec, tmp_path / "index").folder
    first = open_version(folder)
    delete(folder, ["3"])
    (folder / "active").unlink()
    expected = "holds versions of an index, none of them active; make a version the active one with `proponent versions"
    with pytest.raises(BuildError, match=expected):
        build(micro, spec, folder, restart=restart)
    Journal(folder).write_plan(begin(micro, spec, None).record)  # as of a build that was stopped after its commit
    with pytest.raises(BuildError, match="holds versions of an index, none of them active"):
        build(micro, spec, folder, restart=restart)
    assert len(versions_of(folder)) == 2
    assert dict(activate(folder, first.version).verify()) == first.manifest.objects()


def test_a_build_that_was_stopped_between_its_manifest_and_its_end_is_ended(
    micro: Task, spec: BuildSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    stop_at("indexer.index.versions._make_active", lambda: build(micro, spec, folder), monkeypatch)
    [before] = versions_of(folder)
    assert not is_index(folder)
    assert build(micro, spec, folder) == before


def test_the_log_does_not_say_built_where_it_was_edited_since(
    micro: Task, spec: BuildSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    stop_at("indexer.building.build._log", lambda: build(micro, spec, folder), monkeypatch)
    edited = delete(folder, ["3"])
    log = (folder / "log.jsonl").read_bytes()
    assert build(micro, spec, folder) == edited
    assert (folder / "log.jsonl").read_bytes() == log and not (folder / "building").exists()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("name", ["file", "file/index"])
def test_a_file_is_no_place_to_build_in(micro: Task, spec: BuildSpec, tmp_path: Path, name: str, restart: bool) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BuildError, match=r"file' is a file; expected a folder to build the index in"):
        build(micro, spec, tmp_path / name, restart=restart)


def test_a_build_that_was_stopped_before_its_fit_leaves_nothing(micro: Task, spec: BuildSpec, tmp_path: Path) -> None:
    def dies(stage: str, done: int, total: int) -> None:
        raise TaskError("at once")

    with pytest.raises(TaskError, match="at once"):
        build(micro, spec, tmp_path / "index", dies)
    assert list(tmp_path.iterdir()) == []


def test_two_builds_in_one_folder_exclude_each_other(micro: Task, spec: BuildSpec, tmp_path: Path) -> None:
    def meanwhile(stage: str, done: int, total: int) -> None:
        if (stage, done) != ("vectors", 8):
            return
        with pytest.raises(BuildError, match=r"another build or edit is at work in '.*index'; wait for it"):
            build(micro, spec, tmp_path / "index")

    assert is_index(build(micro, spec, tmp_path / "index", meanwhile).folder)
    with writing_in(tmp_path / "other"), pytest.raises(BuildError, match="another build or edit is at work in"):
        build(micro, spec, tmp_path / "other")


def test_a_build_that_was_stopped_at_its_very_end_is_ended_by_the_same_command(
    micro: Task, spec: BuildSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    stop_at("indexer.building.build._log", lambda: build(micro, spec, folder), monkeypatch)
    assert is_index(folder) and (folder / "building").is_dir()
    ended = build(micro, spec, folder)
    ended.check_sizes()
    assert not (folder / "building").exists()
    with pytest.raises(BuildError, match="already holds an index"):
        build(micro, spec, folder)
    with pytest.raises(BuildError, match="already holds an index"):
        build(micro, spec, folder, restart=True)
