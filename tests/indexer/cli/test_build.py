"""``proponent build``: the forms of its options, and an index that the other commands can use."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from indexer.building.spec import DEFAULT_PROJECTION, BuildSpec
from indexer.cli.build import _spec
from indexer.errors import BuildError, CheckpointError, TaskError
from indexer.index.versions import is_index, open_version
from tests.indexer.cli.conftest import Command

RUN = Path("runs/digits")


@pytest.mark.parametrize(
    ("option", "projection"),
    [
        (None, dict(DEFAULT_PROJECTION)),
        ("identity", {"name": "identity"}),
        ("rank1:64", {"name": "rank1", "numbers": 64, "seed": 0}),
        ("gaussian:8", {"name": "gaussian", "numbers": 8, "seed": 0}),
        ("pca", {"name": "pca", "seed": 0}),
        ("countsketch", {"name": "countsketch", "seed": 0}),
    ],
)
def test_the_forms_of_a_projection(option: str | None, projection: dict[str, Any]) -> None:
    assert _spec(RUN, option, None) == BuildSpec(RUN, projection=projection)


def test_a_name_alone_takes_the_default_numbers() -> None:
    """The same choice must give the same index, however it is said: the parameters are part of the fingerprint."""
    named, counted = (_spec(RUN, option, None).method_parameters(3) for option in ("rank1", "rank1:1024"))
    assert named == counted
    assert _spec(RUN, "pca", None) == _spec(RUN, None, None) == BuildSpec(RUN)


@pytest.mark.parametrize("option", ["rank1:", "rank1:x", "rank1:-5", "rank1:1.5", "rank1: 5", "rank1:٣", "rank1:1:2"])
def test_a_projection_of_another_form_is_refused(option: str) -> None:
    with pytest.raises(BuildError, match=f"--projection '{option}': expected a name, or a name and a number as in"):
        _spec(RUN, option, None)


def test_a_spec_file_says_everything_and_stands_alone(tmp_path: Path) -> None:
    file = tmp_path / "spec.toml"
    file.write_text('batch_size = 7\n[projection]\nname = "identity"\n')
    assert _spec(RUN, None, file) == BuildSpec(RUN, projection={"name": "identity"}, batch_size=7)
    with pytest.raises(BuildError, match="--projection and --spec both say the projection; give one of them"):
        _spec(RUN, "identity", file)


def test_from_a_task_in_a_file_to_an_answer(command: Command, task_file: str, run: Path, tmp_path: Path) -> None:
    """Build, inspect, verify and query, as the documentation has them one after the other."""
    index = tmp_path / "indexes" / "digits"
    built = command("build", task_file, "--checkpoints", run, "--out", index, "--projection", "rank1:64")
    version = open_version(index)
    assert built.exit_code == 0
    assert built.stdout == ""
    told = " ".join(built.stderr.split())
    width = version.manifest.vectors.width
    assert "300 rows x 3 checkpoints: about" in told
    assert f"300 vectors of {4 * width:,} bytes, version {version.version}" in told
    card = version.manifest.card
    assert card is not None
    recalls = f"{card.proponents.recall_at_10:.0%} of proponents, {card.opponents.recall_at_10:.0%} of opponents"
    assert f"recall@10 against exact scores, 50 test queries: {recalls}" in told
    assert f"next: proponent serve {index} --task {task_file}" in told
    assert version.manifest.method.parameters == {"projection": {"name": "rank1", "numbers": 64, "seed": 0}}
    assert f"{width:,} float32 numbers" in command("inspect", index).stdout
    assert f"version {version.version}, 8 files, as they were written" in command("verify", index).stdout
    asked = command("query", index, "--task", task_file, "--example", "test/17", "-k", 4)
    assert asked.stdout.count("train/") == 8


def test_bytes_an_example_are_the_most_that_it_takes(
    command: Command, task_file: str, run: Path, tmp_path: Path
) -> None:
    for projection in ("pca", "countsketch"):
        index = tmp_path / projection
        options = ("--out", index, "--projection", projection, "--bytes-per-example", 64)
        built = command("build", task_file, "--checkpoints", run, *options)
        assert built.exit_code == 0
        code = open_version(index).manifest.vectors.code
        assert code is not None and code.row_bytes <= 64
        assert f"300 vectors of {code.row_bytes} bytes" in " ".join(built.stderr.split())
        assert f"coded numbers, {code.row_bytes} bytes each" in " ".join(command("inspect", index).stdout.split())
    few = command("build", task_file, "--checkpoints", run, "--out", tmp_path / "few", "--bytes-per-example", 15)
    assert few.exit_code == 2 and "Invalid value for '--bytes-per-example'" in few.output
    with pytest.raises(BuildError, match="bytes_per_example and projection 'identity' contradict each other"):
        options = ("--out", tmp_path / "all", "--projection", "identity", "--bytes-per-example", 64)
        command("build", task_file, "--checkpoints", run, *options)
    assert not is_index(tmp_path / "all")


def test_bytes_go_before_those_of_a_spec_file(command: Command, task_file: str, run: Path, tmp_path: Path) -> None:
    file, index = tmp_path / "spec.toml", tmp_path / "index"
    file.write_text("bytes_per_example = 128\ncard_queries = 0\n[projection]\nname = 'pca'\nsample = 50\n")
    command("build", task_file, "--checkpoints", run, "--out", index, "--spec", file, "--bytes-per-example", 64)
    manifest = open_version(index).manifest
    assert manifest.method.parameters == {"projection": {"name": "pca", "bytes": 64, "sample": 50, "seed": 0}}
    assert manifest.card is None


def test_another_eta_than_the_default_is_said(command: Command, task_file: str, run: Path, tmp_path: Path) -> None:
    for eta, said in (("interval", True), ("learning_rate", False)):
        options = ("--out", tmp_path / eta, "--projection", "rank1:64", "--eta", eta)
        built = command("build", task_file, "--checkpoints", run, *options)
        assert ("eta by interval" in built.stderr.splitlines()) == said


def test_the_help_says_what_eta_may_be(command: Command) -> None:
    words = " ".join(command("build", "--help").stdout.replace("│", " ").split())
    assert "'learning_rate' (default)" in words and "'interval'" in words


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("svd", "unknown projection 'svd'; expected one of identity, gaussian, rank1, countsketch, pca"),
        ("identity:5", "projection 'identity' does not take the parameters"),
        ("pca:64", "--projection 'pca:64': pca is told how many bytes: --bytes-per-example 64"),
    ],
)
def test_a_projection_that_cannot_be_is_refused_and_leaves_no_index(
    command: Command, task_file: str, run: Path, tmp_path: Path, option: str, text: str
) -> None:
    with pytest.raises(BuildError, match=text):
        command("build", task_file, "--checkpoints", run, "--out", tmp_path / "out", "--projection", option)
    assert not is_index(tmp_path / "out")


def test_an_existing_index_is_not_built_over(command: Command, task_file: str, run: Path, index_folder: Path) -> None:
    before = open_version(index_folder)
    with pytest.raises(BuildError, match="already holds an index; build into another folder, or remove this one first"):
        command("build", task_file, "--checkpoints", run, "--out", index_folder)
    assert open_version(index_folder) == before


def test_what_is_not_there_is_named(command: Command, task_file: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no checkpoints; expected checkpoints\.json; checkpoint-N/"):
        command("build", task_file, "--checkpoints", tmp_path, "--out", tmp_path / "out")
    with pytest.raises(TaskError, match=r"task file 'nope\.py' does not exist"):
        command("build", "nope.py:task", "--checkpoints", tmp_path, "--out", tmp_path / "out")


def test_a_missing_option_is_named(command: Command, task_file: str) -> None:
    result = command("build", task_file)
    assert result.exit_code == 2
    assert "Missing option '--checkpoints'" in result.output


def test_the_same_command_goes_on_and_another_must_say_restart(
    command: Command, task_file: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    line = ("build", task_file, "--checkpoints", run, "--out", index, "--projection")
    with monkeypatch.context() as patch:
        patch.setattr("indexer.building.build.write_examples", None)
        with pytest.raises(TypeError):
            command(*line, "identity")
    with pytest.raises(BuildError, match=r"cannot go on: projection\.name was 'identity', and is 'rank1' now"):
        command(*line, "rank1:16")
    told = command(*line, "identity").stderr
    assert "going on with a build that was stopped: 300 rows are there" in told and is_index(index)
    shutil.rmtree(index / "versions")
    (index / "active").unlink()
    assert command(*line, "rank1:16", "--restart").exit_code == 0
    assert open_version(index).manifest.method.parameters["projection"]["name"] == "rank1"
