"""``proponent checkpoints``: what a person reads of a run and of a choice, and the same for programs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.checkpoints.choose import choose
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.formats.listing import write_history, write_listing
from indexer.checkpoints.history import history
from indexer.errors import BuildError, CheckpointError, ChoiceError
from tests.indexer.cli.conftest import Command

STEPS, EVERY = 600, 50


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A run of 12 empty checkpoints with a history of every step, as a recorder writes it."""
    folder = tmp_path / "runs" / "made"
    folder.mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    for end in range(EVERY, STEPS + 1, EVERY):
        steps = np.arange(end - EVERY + 1, end + 1)
        losses = 2.2 * np.exp(-steps / 100) + 0.1
        (folder / f"{end}.safetensors").touch()
        write_history(folder / f"{end}.history", history(steps.tolist(), [[0.1]] * EVERY, losses.tolist()))
        entry = {"file": f"{end}.safetensors", "learning_rate": 0.1, "step": end, "epoch": end / 100}
        entries.append({**entry, "train_loss": float(losses.mean()), "history": f"{end}.history"})
    write_listing(folder, entries, {"optimizer": {"name": "sgd", "momentum": 0.9}, "steps_per_epoch": 100})
    return folder


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│").split("│")]


def row(output: str, name: str) -> list[str]:
    [line] = [line for line in output.splitlines() if line.startswith(f"│ {name} ")]
    return cells(line)


def test_a_person_reads_what_a_run_is(command: Command, recorded: Path) -> None:
    shown = command("checkpoints", "show", recorded)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert row(shown.stdout, "kind") == ["kind", "a folder with checkpoints.json"]
    assert row(shown.stdout, "optimizer") == ["optimizer", "sgd {'momentum': 0.9}"]
    assert row(shown.stdout, "steps an epoch") == ["steps an epoch", "100"]
    assert row(shown.stdout, "history")[1] == "600 losses, 0 gradient norms, 600 learning rates"
    loss = open_run(recorded).checkpoints[0].train_loss
    assert row(shown.stdout, "50.safetensors") == ["50.safetensors", "50", "0.5", f"{loss:.4g}", "0.1", "0.05"]
    assert "no eta" not in shown.stdout


def test_why_there_is_no_eta_stands_below(command: Command, recorded: Path) -> None:
    listing = json.loads((recorded / "checkpoints.json").read_bytes())
    del listing["steps_per_epoch"], listing["optimizer"]
    (recorded / "checkpoints.json").write_text(json.dumps(listing))
    shown = command("checkpoints", "show", recorded)
    assert row(shown.stdout, "50.safetensors")[-1] == "-"
    assert row(shown.stdout, "optimizer")[1] == row(shown.stdout, "steps an epoch")[1] == "not noted"
    assert "no eta by interval: eta = 'interval' needs the optimizer's steps an epoch" in " ".join(shown.stdout.split())


def test_a_program_reads_what_a_run_is(command: Command, recorded: Path) -> None:
    found = json.loads(command("checkpoints", "show", recorded, "--json").stdout)
    assert (found["kind"], found["steps_per_epoch"]) == ("a folder with checkpoints.json", 100)
    assert found["optimizer"] == {"name": "sgd", "momentum": 0.9}
    assert [entry["step"] for entry in found["checkpoints"]] == list(range(50, 601, 50))
    assert found["checkpoints"][0]["learning_rates"] == [0.1]
    assert found["checkpoints"][0]["eta_by_interval"] == pytest.approx([0.05])
    assert found["eta_note"] is None


def test_a_person_reads_what_is_chosen_and_why_not_the_others(command: Command, recorded: Path, tmp_path: Path) -> None:
    plot = tmp_path / "pictures" / "choice.png"
    done = command("checkpoints", "choose", recorded, "--k", 3, "--plot", plot)
    choice = choose(open_run(recorded), 3)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "loss near it" in done.stdout
    for verdict in choice.verdicts:
        found = row(done.stdout, verdict.checkpoint.name)
        assert found[1:3] == [str(verdict.checkpoint.step), f"{verdict.checkpoint.epoch:g}"]
        assert found[3:5] == [f"{verdict.loss:.4g}", f"{verdict.level:.4g}"]
        assert found[5] == (verdict.why_not or "chosen")
    assert sum(" chosen " in line for line in done.stdout.splitlines()[3:]) == len(choice.chosen) == 3
    assert done.stdout.splitlines()[-2:] == [
        f"drawn to {plot}",
        f"to build with this choice: proponent build TASK --checkpoints {recorded} --choose 3 --out INDEX",
    ]
    assert plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("name", ["choice", "choice.jpeg"])
def test_a_picture_of_no_kind_is_refused_before_anything(
    command: Command, recorded: Path, tmp_path: Path, name: str
) -> None:
    plot = tmp_path / name
    expected = rf"expected a picture, a file that ends in \.png, \.svg or \.pdf; found '{plot}'"
    with pytest.raises(BuildError, match=expected):
        command("checkpoints", "choose", recorded, "--plot", plot)
    assert not list(tmp_path.glob("choice*"))


def test_a_program_may_have_the_picture_drawn_too(command: Command, recorded: Path, tmp_path: Path) -> None:
    plot = tmp_path / "a.svg"
    found = json.loads(command("checkpoints", "choose", recorded, "--k", 3, "--plot", plot, "--json").stdout)
    assert found["k"] == 3 and plot.exists()


def test_the_help_names_the_extra(command: Command) -> None:
    assert "proponent[plot]" in command("checkpoints", "choose", "--help").stdout


def test_notes_follow_the_table(command: Command, recorded: Path) -> None:
    shown = command("checkpoints", "choose", recorded, "--k", 40).stdout
    chosen = len(choose(open_run(recorded), 40).chosen)
    assert f"{chosen} of 40: no other checkpoint lies where the loss falls steadily" in shown.splitlines()


def test_a_program_reads_what_is_chosen(command: Command, recorded: Path) -> None:
    found = json.loads(command("checkpoints", "choose", recorded, "--k", 3, "--json").stdout)
    choice = choose(open_run(recorded), 3)
    assert (found["k"], found["notes"]) == (3, [])
    assert [e["step"] for e in found["checkpoints"] if e["chosen"]] == [c.step for c in choice.chosen]
    assert [e["why_not"] for e in found["checkpoints"]] == [v.why_not for v in choice.verdicts]
    assert [e["level"] for e in found["checkpoints"]] == [v.level for v in choice.verdicts]


def test_what_cannot_be_chosen_from_is_refused(command: Command, recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing"):
        command("checkpoints", "choose", tmp_path / "nothing")
    listing = json.loads((recorded / "checkpoints.json").read_bytes())
    for entry in listing["checkpoints"]:
        del entry["history"], entry["train_loss"]
    (recorded / "checkpoints.json").write_text(json.dumps(listing))
    with pytest.raises(ChoiceError, match="notes no losses; expected losses that fall"):
        command("checkpoints", "choose", recorded)
    assert command("checkpoints", "choose", recorded, "--k", 0).exit_code == 2
