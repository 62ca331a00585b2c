"""``proponent inspect``: what a person reads, and the manifest for programs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer import BuildSpec, Task
from indexer.building.survey import Survey
from indexer.editing.delete import delete
from indexer.errors import BuildError, CorruptIndexError, UnknownIndexError
from indexer.index.versions import open_version
from tests.cards import DOCUMENT, RECALL, card, give_card
from tests.indexer.cli.conftest import Command


def test_a_person_reads_the_whole_story(command: Command, index_folder: Path, task: Task) -> None:
    version = open_version(index_folder)
    manifest = version.manifest
    shown = command("inspect", index_folder)
    words = " ".join(shown.stdout.split())
    assert (shown.exit_code, shown.stderr) == (0, "")
    for expected in (
        version.name,
        version.version,
        "tracin {'projection': {'name': 'identity'}}",
        f"300 of {manifest.vectors.width:,} float32 numbers, {4 * manifest.vectors.width:,} bytes each",
        "300 train, 100 test",
        str(task.codec.describe()),
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "all checkpoints in one vectorised pass",
        f"batches of 64, {manifest.plan.threads} threads",
    ):
        assert expected in words
    for checkpoint in manifest.checkpoints:
        [line] = [line for line in shown.stdout.splitlines() if checkpoint.file in line]
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert cells[1:] == ["0.1", str(checkpoint.step), f"{checkpoint.epoch:g}", f"{checkpoint.train_loss:.4f}"]
    for block in manifest.blocks:
        [line] = [line for line in shown.stdout.splitlines() if " + ".join(block.parameters) in line]
        assert f"{block.shape[0]} x {block.shape[1]}" in line
        assert block.path in line
        assert block.note in line


def test_a_program_reads_the_manifest(command: Command, index_folder: Path) -> None:
    shown = command("inspect", index_folder, "--json")
    assert json.loads(shown.stdout) == open_version(index_folder).manifest.model_dump(mode="json")


def test_a_person_reads_the_card(command: Command, index_folder: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(index_folder)
    give_card(folder, card())
    words = " ".join(command("inspect", folder).stdout.split())
    for expected in (
        "card ┃ 50 test examples against 4,500 rows",
        "proponents │ recall@10 0.912 [0.881, 0.940], recall@100 0.950 [0.938, 0.963]",
        "opponents │ recall@10 0.938, recall@100 0.950 [0.938, 0.963]",
        "Pearson │ 0.9961 [0.9951, 0.9972]",
        "Spearman │ 0.8750 [0.7500, 0.9375]",
        "score error │ 50% within 0.0125, 100% within 0.5 of the RMS of a query's scores",
        "in brackets │ 95% intervals, over queries",
        "a query reads │ 257.5 bytes an example, and 123,456 of bases",
    ):
        assert expected in words
    assert json.loads(command("inspect", folder, "--json").stdout)["card"] == DOCUMENT


def test_a_person_reads_what_a_card_cannot_say(
    command: Command, index_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(index_folder)
    alone = RECALL | {"recall_at_10_interval": None, "recall_at_100_interval": None}
    give_card(folder, card(source="train", pearson=None, spearman_interval=None, error=[], proponents=alone))
    words = " ".join(command("inspect", folder).stdout.split())
    for expected in (
        "50 train examples against 4,500 rows, without themselves",
        "proponents │ recall@10 0.912, recall@100 0.950 │",
        "Pearson │ none: all scores are equal",
        "Spearman │ 0.8750 │",
        "score error │ none: all exact scores are zero",
    ):
        assert expected in words
    give_card(folder, None)
    words = " ".join(command("inspect", folder).stdout.split())
    assert "card ┃ none: how well its scores agree with exact ones was not measured" in words


def test_what_is_no_index_is_refused(command: Command, tmp_path: Path) -> None:
    with pytest.raises(UnknownIndexError, match="holds no finished index; build one with `proponent build`"):
        command("inspect", tmp_path)
    (tmp_path / "active").write_text("0123456789abcdef\n")
    with pytest.raises(CorruptIndexError, match="names version '0123456789abcdef', which does not exist"):
        command("inspect", tmp_path)


def test_a_task_is_surveyed_before_its_build(command: Command, task_file: str, run: Path) -> None:
    shown = command("inspect", task_file, "--checkpoints", run, "--projection", "rank1:64", "--parameters", "5.*")
    words = " ".join(shown.stdout.split())
    assert (shown.exit_code, shown.stderr) == (0, "")
    for expected in (
        "10 x 37",
        "100.0%",
        "probe │ passed: every path agrees with a plain float64 backward(), example by example",
        "left out │ 1.weight, 1.bias",
        "weights │ of 3 checkpoints",
        "60 numbers a checkpoint, 720 bytes an example",
        "for 300 examples at 3 checkpoints",
    ):
        assert expected in words.replace("│ │ ", "")


def test_bytes_of_coded_rows_are_a_bound(command: Command, task_file: str) -> None:
    for options, bound in (((), 512), (("--bytes-per-example", 64), 64), (("--projection", "rank1:8"), None)):
        words = " ".join(command("inspect", task_file, "--parameters", "5.*", *options).stdout.split())
        assert ("at most" in words) == ("shared" in words) == ("once a sample" in words) == (bound is not None)
        if bound is not None:
            assert f"coded, at most {bound} bytes an example" in words


def test_a_program_reads_the_survey(command: Command, task_file: str) -> None:
    found = json.loads(command("inspect", task_file, "--json").stdout)
    assert [entry["block"]["name"] for entry in found["blocks"]] == ["1.weight", "5.weight"]
    assert found["trained"] is False and found["checkpoints"] == 1
    assert sum(entry["energy"] for entry in found["blocks"]) == pytest.approx(1)


def test_options_of_a_task_are_refused_for_an_index(command: Command, index_folder: Path, run: Path) -> None:
    with pytest.raises(
        BuildError, match="--checkpoints, --choose, --steps, --projection, --bytes-per-example and --parameters are for"
    ):
        command("inspect", index_folder, "--checkpoints", run)
    for option in (("--choose", 2), ("--steps", "1"), ("--bytes-per-example", 64)):
        with pytest.raises(BuildError, match="are for a task"):
            command("inspect", index_folder, *option)


def test_the_survey_is_told_which_checkpoints(
    command: Command, task_file: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[BuildSpec] = []

    def survey(*arguments: Any) -> Survey:
        told.extend(argument for argument in arguments if isinstance(argument, BuildSpec))
        raise BuildError("enough")

    monkeypatch.setattr(sys.modules["indexer.cli.inspect"], "survey", survey)
    for option in (("--choose", 2), ("--steps", "7,14")):
        with pytest.raises(BuildError, match="enough"):
            command("inspect", task_file, "--checkpoints", run, *option)
    assert [(spec.checkpoints, spec.choose, spec.steps) for spec in told] == [(run, 2, ()), (run, None, (7, 14))]


def test_checkpoints_are_taken_of_a_run(command: Command, task_file: str) -> None:
    for option in (("--choose", 2), ("--steps", "7,14")):
        with pytest.raises(BuildError, match="--choose and --steps take checkpoints of a run; name it with --checkpoi"):
            command("inspect", task_file, *option)


def test_a_person_reads_what_became_of_an_index(
    command: Command, index_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(index_folder)
    give_card(folder, card())
    first = open_version(folder).version
    second = delete(folder, ["0", "7", "299"]).version
    words = " ".join(command("inspect", folder).stdout.split())
    for expected in (
        f"version │ {second}, delete of {first}",
        "bytes each, 3 of them deleted",
        "search │ flat: every row is compared",
        "examples │ 297 train, 100 test",
        f"measured on version {first}, before it was edited",
    ):
        assert expected in words
