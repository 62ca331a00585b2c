"""What a user may choose of a build beyond its projection: parameters, preconditioner, memory format, device."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from indexer import Ask, BuildSpec, KnownExample, Question, Task, build
from indexer.building.source import Options, chosen_parameters, find_device, open_source
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.optimizer import describe_optimizer
from indexer.checkpoints.weights import read_weights
from indexer.errors import BuildError, CheckpointError
from indexer.index.store import open_store
from indexer.index.versions import IndexVersion
from tests.chosen import chosen
from tests.reference import in_float64, loop_gradients_by_name, relative_error
from tests.tiny import tiny_model

RANK1 = {"name": "rank1", "numbers": 1024, "seed": 0}  # without data: row by row the same map
SINGLE = 1e-4  # float32: gradients at float32 weights against float64, scaled by step sizes of very different size


@pytest.fixture
def small(task: Task) -> Task:
    """The first 40 digits, and 5 to ask about."""
    assert task.test is not None
    return replace(task, train=chosen(task.train, range(40)), test=chosen(task.test, range(5)))


@pytest.fixture
def adam_run(small: Task, tmp_path: Path) -> Path:
    """Two checkpoints of a run with Adam, its state beside each."""
    folder, module = tmp_path / "adam", tiny_model()
    folder.mkdir()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    inputs, targets = small.train.tensors  # type: ignore[attr-defined]
    entries = []
    for step in (1, 2):
        for _ in range(4):
            optimizer.zero_grad()
            torch.autograd.backward(small.loss(module(inputs), targets).mean())
            optimizer.step()
        torch.save(module.state_dict(), folder / f"{step}.pt")
        torch.save(optimizer.state_dict(), folder / f"{step}.optimizer.pt")
        entries.append({"file": f"{step}.pt", "learning_rate": 0.01, "optimizer_state": f"{step}.optimizer.pt"})
    listing = {"checkpoints": entries, "optimizer": describe_optimizer(optimizer)}
    (folder / "checkpoints.json").write_text(json.dumps(listing))
    return folder


def relist(run: Path, **changes: object) -> None:
    """Change the listing of a run: ``optimizer``, or a key of its first checkpoint."""
    listing = json.loads((run / "checkpoints.json").read_text())
    if "optimizer" in changes:
        listing["optimizer"] = changes.pop("optimizer")
    listing["checkpoints"][0].update(changes)
    (run / "checkpoints.json").write_text(json.dumps(listing))


def vectors(version: IndexVersion) -> np.ndarray:
    return np.concatenate(list(open_store(version.objects, version.manifest.vectors)))


def scaled_gradients(task: Task, run: Path, examples: TensorDataset) -> Iterator[Tensor]:
    """eta^1/2 D^1/2 g at every checkpoint, by the loop and by the optimizer's own numbers, in float64."""
    for checkpoint in open_run(run).checkpoints:
        module = in_float64(tiny_model(), torch.load(checkpoint.path, weights_only=True))
        by_name = loop_gradients_by_name(module, task.loss, *examples.tensors)
        optimizer = torch.optim.Adam(tiny_model().parameters())
        assert checkpoint.optimizer_state is not None
        optimizer.load_state_dict(torch.load(checkpoint.optimizer_state, weights_only=True))
        rows = []
        for (_, gradient), state in zip(by_name.items(), optimizer.state.values(), strict=True):
            moments = state["exp_avg_sq"].double() / (1 - 0.999 ** float(state["step"]))
            rows.append((gradient / (moments.sqrt() + 1e-8).sqrt()).flatten(1))
        yield checkpoint.learning_rates[0] ** 0.5 * torch.cat(rows, dim=1)


def test_adam_scales_both_sides_by_the_root_of_its_step_sizes(small: Task, adam_run: Path, tmp_path: Path) -> None:
    spec = BuildSpec(adam_run, projection={"name": "identity"}, preconditioner="adam", batch_size=16)
    version = build(small, spec, tmp_path / "index")
    train = list(scaled_gradients(small, adam_run, small.train))  # type: ignore[arg-type]
    found = torch.from_numpy(vectors(version)).double()
    gram = sum(part @ part.T for part in train)
    assert relative_error(found @ found.T, gram) < SINGLE  # type: ignore[arg-type]
    ask = Ask.open(tmp_path / "index", small)
    assert small.test is not None
    ranking = ask.query(Question(KnownExample("test", "2"), label=small.label_of(small.test[2][1]), k=40))
    queries = list(scaled_gradients(small, adam_run, small.test))  # type: ignore[arg-type]
    expected = sum(q[2] @ t.T for q, t in zip(queries, train, strict=True))
    scores = torch.tensor([hit.score for hit in sorted(ranking.proponents, key=lambda hit: int(hit.id))])
    assert relative_error(scores, expected) < SINGLE  # type: ignore[arg-type]
    own = torch.tensor([hit.self_influence for hit in sorted(ranking.proponents, key=lambda hit: int(hit.id))])
    assert relative_error(own, gram.diagonal()) < SINGLE  # type: ignore[union-attr]
    assert version.manifest.method.parameters["preconditioner"] == "adam"
    assert ranking.warnings == tuple(version.manifest.caveats)
    assert ranking.warnings[0].startswith("trained with adam: gradients are scaled by its second moments")
    ask.close()


def test_a_run_with_adam_is_indexed_without_its_state_and_says_what_that_means(
    small: Task, adam_run: Path, tmp_path: Path
) -> None:
    version = build(small, BuildSpec(adam_run), tmp_path / "index")
    assert version.manifest.optimizer is not None and version.manifest.optimizer["name"] == "adam"
    [caveat] = version.manifest.caveats
    assert caveat.startswith("trained with adam, which scales every weight's step by itself; scores account for plain")
    fitted = version.manifest.method.fitted
    assert fitted is not None  # the bases alone
    assert all(name.startswith("bases/") for name in safetensors.torch.load(version.objects.read(fitted, "fitted")))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"optimizer_state": None},
            r"checkpoint 1 of 2 \('1.pt'\) has no optimizer_state; the preconditioner",
        ),
        (
            {"optimizer_state": "gone.pt"},
            r"checkpoint 1 of 2 \('1.pt'\) has optimizer_state 'gone.pt', which does",
        ),
        (
            {"optimizer": {"name": "sgd"}},
            r"\('1.pt'\) was trained with 'sgd'; the preconditioner 'adam' is for",
        ),
        ({"optimizer_state": "1.pt"}, "optimizer state '1.pt' is no state of an optimizer"),
    ],
)
def test_adam_without_its_state_is_refused(
    small: Task, adam_run: Path, tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    relist(adam_run, **changes)
    with pytest.raises(CheckpointError, match=expected):
        build(small, BuildSpec(adam_run, preconditioner="adam"), tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_choice_of_parameters_is_what_is_indexed_and_asked_about(small: Task, run: Path, tmp_path: Path) -> None:
    """The last layer alone, as in TracInCP-fast: the products of its gradients, and nothing of the others."""
    spec = BuildSpec(run, projection={"name": "identity"}, parameters=["5.*"])
    version = build(small, spec, tmp_path / "index")
    assert [entry.parameters for entry in version.manifest.blocks] == [["5.weight", "5.bias"]]
    assert version.manifest.left_out == ["1.weight", "1.bias"]
    expected = torch.zeros(40, 40, dtype=torch.float64)
    for checkpoint in open_run(run).checkpoints:
        module = in_float64(tiny_model(), read_weights(checkpoint.path))
        by_name = loop_gradients_by_name(module, small.loss, *small.train.tensors)  # type: ignore[attr-defined]
        rows = torch.cat([by_name[name].flatten(1) for name in ("5.weight", "5.bias")], dim=1)
        expected += checkpoint.learning_rates[0] * rows @ rows.T
    found = torch.from_numpy(vectors(version)).double()
    assert relative_error(found @ found.T, expected) < SINGLE
    ask = Ask.open(tmp_path / "index", small)
    hits = ask.query(Question(KnownExample("train", "3"), label=small.label_of(small.train[3][1]), k=40)).proponents
    scores = torch.tensor([hit.score for hit in sorted(hits, key=lambda hit: int(hit.id))])
    assert relative_error(scores, expected[3]) < SINGLE
    ask.close()


def test_patterns_leave_out_and_find_a_tied_weight_by_any_of_its_names() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    assert chosen_parameters(module, ["1.weight"]) == ["0.weight"]
    assert chosen_parameters(module, ["!0.*"]) == ["1.bias"]
    assert chosen_parameters(module, ["*.bias", "!1.*"]) == ["0.bias"]
    with pytest.raises(BuildError, match=r"parameters: 'pooler.\*' fits no trainable parameter"):
        chosen_parameters(module, ["!pooler.*"])


def test_a_state_without_names_is_used_and_said(small: Task, adam_run: Path, tmp_path: Path) -> None:
    caveats = build(small, BuildSpec(adam_run, preconditioner="adam"), tmp_path / "index").manifest.caveats
    assert caveats[1:] == ["the optimizer's state keeps no names: taken to be in the order of model.parameters()"]


def test_scores_that_are_scaled_say_so_whatever_the_listing_says(small: Task, adam_run: Path, tmp_path: Path) -> None:
    relist(adam_run, optimizer=None)
    manifest = build(small, BuildSpec(adam_run, preconditioner="adam"), tmp_path / "index").manifest
    assert manifest.optimizer is None
    assert manifest.caveats[0].startswith("trained with adam: gradients are scaled by its second moments")


def test_patterns_choose_trainable_parameters_only() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    module[0].weight.requires_grad_(False)
    assert chosen_parameters(module, []) is None
    assert chosen_parameters(module, ["*.weight", "0.*"]) == ["0.bias", "1.weight"]
    expected = "parameters: '0.weight' fits no trainable parameter of the model; they are '0.bias', '1.weight', '1.b"
    with pytest.raises(BuildError, match=expected):
        chosen_parameters(module, ["1.*", "0.weight"])


class Viewing(nn.Module):
    """Flattens with ``view``, which channels last does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 4, 5, stride=4), nn.Linear(4 * 6 * 6, 10)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(F.relu(self.convolution(x)).view(len(x), -1))
        return outputs


@pytest.mark.parametrize(
    ("model", "asked", "expected"),
    [
        (tiny_model, "auto", True),
        (tiny_model, "contiguous", False),
        (tiny_model, "channels_last", True),
        (Viewing, "auto", False),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), "auto", False),
    ],
    ids=["convolutions", "contiguous", "channels last", "view", "no convolution"],
)
def test_channels_last_is_taken_where_it_pays_and_works(
    small: Task, tmp_path: Path, model: type[nn.Module], asked: str, expected: bool
) -> None:
    torch.save(model().state_dict(), tmp_path / "1.pt")
    listing = {"checkpoints": [{"file": "1.pt", "learning_rate": 0.1}]}
    (tmp_path / "checkpoints.json").write_text(json.dumps(listing))
    source = open_source(replace(small, model=model), open_run(tmp_path), Options(memory_format=asked))
    assert source.model.placement.channels_last is expected


def test_both_memory_formats_give_the_same_vectors(small: Task, run: Path, tmp_path: Path) -> None:
    found = [
        vectors(build(small, BuildSpec(run, projection=RANK1, memory_format=name), tmp_path / name))
        for name in ("contiguous", "channels_last")
    ]
    assert relative_error(*map(torch.from_numpy, found)) < 1e-5  # float32 sums in another order


def test_a_device_that_is_not_there_is_refused(small: Task, run: Path, tmp_path: Path) -> None:
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(BuildError, match=r"device 'typo' cannot be used here: .*; use 'cpu'"):
        find_device("typo")
    if not torch.cuda.is_available():
        with pytest.raises(BuildError, match=r"device 'cuda' cannot be used here: .*; use 'cpu'"):
            build(small, BuildSpec(run, device="cuda"), tmp_path / "index")
