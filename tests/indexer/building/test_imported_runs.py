"""From the folder of a Trainer or of Lightning to an answer, with no code but the task; exact scores are the truth."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Subset

from indexer import Ask, BuildSpec, KnownExample, Preview, Question, Task, build
from indexer.errors import CheckpointError, LearningRateError
from tests.reference import in_float64, loop_gradients_by_name, top_k
from tests.runs import STEPS_AN_EPOCH, Rates, examples, lightning_run, network, one_group, trainer_run

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
FLOAT32 = 1e-4  # relative: products of float32 gradients against float64
IDENTITY = {"name": "identity"}
BODY, HEAD = ("0.weight", "0.bias"), ("2.weight", "2.bias")


class Points:
    """Three numbers."""

    modality = "tabular"

    def decode(self, payload: Mapping[str, Any]) -> Tensor:
        return torch.tensor(payload["values"])

    def preview(self, example: Tensor) -> Preview:
        return Preview("text/plain", str(example.tolist()).encode())

    def describe(self) -> dict[str, Any]:
        return {"modality": "tabular", "columns": 3}


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


task = Task(
    model=network,
    loss=loss,
    train=examples(),
    test=Subset(examples(), range(4)),
    codec=Points(),
    labels=["below", "above"],
)

Seen = tuple[Path, list[Rates]]
RUNS: dict[str, Callable[[Path], list[Rates]]] = {
    "trainer, rates logged at every step": lambda folder: trainer_run(folder, logging_steps=1),
    "trainer, rates logged at every other step": lambda folder: trainer_run(folder, logging_steps=2, save_steps=4),
    "lightning, its network under an attribute": lightning_run,
    "lightning, without a log of rates": lambda folder: lightning_run(folder, metrics=None),
}


@pytest.fixture(scope="module", params=RUNS)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The folder of a run, and the rates that its optimizer used at every step."""
    folder = tmp_path_factory.mktemp("run")
    return folder, RUNS[request.param](folder)


def intervals(rates: list[Rates], steps: list[int]) -> list[Rates]:
    """The sums of the used rates between checkpoints, over steps an epoch."""
    bounds = zip([0, *steps[:-1]], steps, strict=True)
    return [tuple((np.sum(rates[a:b], axis=0) / STEPS_AN_EPOCH).tolist()) for a, b in bounds]


def weights(folder: Path) -> dict[int, dict[str, Tensor]]:
    """The network's weights by step, read without any code of ours."""
    found = {
        int(path.parent.name.removeprefix("checkpoint-")): safetensors.torch.load_file(path)
        for path in folder.glob("checkpoint-*/model.safetensors")
    }
    for path in folder.rglob("*.ckpt"):
        file = torch.load(path, weights_only=True)
        found[file["global_step"]] = {
            name.removeprefix("model."): tensor for name, tensor in file["state_dict"].items()
        }
    return dict(sorted(found.items()))


def exact(states: list[dict[str, Tensor]], etas: list[Rates], row: int) -> Tensor:
    """Scores of one test example against all training examples, each group of parameters at its own eta, in float64."""
    inputs, targets = (torch.stack(part) for part in zip(*(task.train[i] for i in range(20)), strict=True))
    scores = torch.zeros(20, dtype=torch.float64)
    for state, (body, head) in zip(states, etas, strict=True):
        by_name = loop_gradients_by_name(in_float64(network(), state), loss, inputs, targets)
        for names, eta in ((BODY, body), (HEAD, head)):
            rows = torch.cat([by_name[name].flatten(1) for name in names], dim=1)
            scores += eta * rows @ rows[row]
    return scores


@pytest.mark.parametrize("convention", ["learning_rate", "interval"])
def test_a_folder_becomes_an_answer(seen: Seen, tmp_path: Path, convention: str) -> None:
    folder, rates = seen
    version = build(task, BuildSpec(folder, projection=IDENTITY, eta=convention), tmp_path / "index")
    manifest = version.manifest
    saved = weights(folder)
    steps = list(saved)
    expected = intervals(rates, steps) if convention == "interval" else [rates[step - 1] for step in steps]
    assert len(steps) > 1 and [entry.step for entry in manifest.checkpoints] == steps
    assert manifest.eta_convention == convention
    for found, (body, head) in zip(manifest.etas(), expected, strict=True):
        assert found == pytest.approx(dict.fromkeys(BODY, body) | dict.fromkeys(HEAD, head), rel=1e-12)
    label = task.label_of(torch.as_tensor(examples()[3][1]))
    ranking = Ask.open(version.folder, task).query(Question(KnownExample("test", "3"), label=label, k=5))
    truth = top_k(exact(list(saved.values()), expected, 3).float(), 5, [str(row) for row in range(20)])
    assert [hit.id for hit in ranking.proponents] == [id for id, _ in truth]
    assert [hit.score for hit in ranking.proponents] == pytest.approx([score for _, score in truth], rel=FLOAT32)


def test_the_adam_preconditioner_reads_the_states_of_a_trainer(tmp_path: Path) -> None:
    trainer_run(tmp_path / "run", logging_steps=1)
    spec = BuildSpec(tmp_path / "run", projection=IDENTITY, preconditioner="adam")
    manifest = build(task, spec, tmp_path / "index").manifest
    assert manifest.optimizer is not None and manifest.optimizer["name"] == "adamw"
    assert any("gradients are scaled by its second moments" in caveat for caveat in manifest.caveats)


def test_checkpoints_are_chosen_by_step_and_the_interval_reaches_back_to_the_one_before(tmp_path: Path) -> None:
    rates = trainer_run(tmp_path / "run", one_group, logging_steps=1)
    spec = BuildSpec(tmp_path / "run", projection=IDENTITY, steps=(4, 10), eta="interval")
    manifest = build(task, spec, tmp_path / "index").manifest
    assert [(entry.file, entry.rates) for entry in manifest.checkpoints] == [
        ("checkpoint-4", []),
        ("checkpoint-10", []),
    ]
    expected = [eta for (eta,) in intervals(rates, [4, 10])]
    assert [entry.eta for entry in manifest.checkpoints] == pytest.approx(expected, rel=1e-12)
    assert manifest.choice == {"rule": "given steps", "of": 5}
    with pytest.raises(CheckpointError, match="has no checkpoint at step 5; it has 2, 4, 6, 8, 10"):
        build(task, BuildSpec(tmp_path / "run", steps=(5,)), tmp_path / "none")


def test_a_last_rate_of_zero_that_nothing_logged_names_the_other_choice(tmp_path: Path) -> None:
    trainer_run(tmp_path / "run", one_group, save_steps=10)
    with pytest.raises(LearningRateError, match=r"\('checkpoint-10'\) has learning_rate 0\.0; .*`--eta interval`"):
        build(task, BuildSpec(tmp_path / "run", projection=IDENTITY), tmp_path / "index")


def test_the_network_may_be_another_than_the_task_s(tmp_path: Path) -> None:
    trainer_run(tmp_path / "run", one_group, logging_steps=1)
    other = Task(model=lambda: nn.Linear(3, 2), loss=loss, train=examples(), codec=Points(), labels=["below", "above"])
    with pytest.raises(CheckpointError, match=r"1 of 5 \('checkpoint-2'\) has no 'weight', which the task's model has"):
        build(other, BuildSpec(tmp_path / "run"), tmp_path / "index")


def head_alone(folder: Path, parameters: Callable[[nn.Sequential], Any]) -> Path:
    """Two steps of an optimizer that has the last layer only, as in linear probing, in a file of one's own."""
    model = network()
    optimizer = torch.optim.Adam(parameters(model), lr=0.01)
    inputs, targets = (torch.stack(part) for part in zip(*(task.train[i] for i in range(20)), strict=True))
    for _ in range(2):
        optimizer.zero_grad()
        torch.autograd.backward(loss(model(inputs), targets).mean())
        optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 2}, folder / "2.pt")
    return folder


@pytest.mark.parametrize(
    "parameters",
    [lambda model: model[2].parameters(), lambda model: model[2].named_parameters()],
    ids=["plain", "named"],
)
def test_what_the_optimizer_never_had_is_not_counted(
    tmp_path: Path, parameters: Callable[[nn.Sequential], Any]
) -> None:
    run = head_alone(tmp_path, parameters)
    with pytest.raises(CheckpointError, match=r"stepped 2 parameters, and the gradient has 4; .*`--parameters`"):
        build(task, BuildSpec(run, projection=IDENTITY), tmp_path / "index")
    version = build(task, BuildSpec(run, projection=IDENTITY, parameters=["2.*"]), tmp_path / "index")
    assert version.manifest.etas() == [dict.fromkeys(HEAD, 0.01)]
    assert version.manifest.left_out == list(BODY)
