"""The source of a build: what is refused before anything long begins, and what is left alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from indexer import Ask, BuildSpec, ImageCodec, KnownExample, Question, Task, build
from indexer.building.source import open_source
from indexer.checkpoints.folder import open_run
from indexer.errors import BuildError, ProbeError, TaskError
from tests.chosen import chosen
from tests.tiny import tiny_model


class Tokens(nn.Module):
    """Ten outputs at each of four positions."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny_model()

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.inner(x)[:, None].expand(-1, 4, -1)
        return outputs


def test_a_model_that_the_task_shares_is_left_as_it_was(task: Task, run: Path) -> None:
    shared = tiny_model().train()
    before = {name: tensor.clone() for name, tensor in shared.state_dict().items()}
    open_source(replace(task, model=lambda: shared), open_run(run))
    assert shared.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in shared.state_dict().items())


def test_too_few_examples_are_refused(task: Task, run: Path) -> None:
    with pytest.raises(BuildError, match="expected at least 4 training examples, found 3"):
        open_source(replace(task, train=chosen(task.train, range(3))), open_run(run))


def test_outputs_by_position_have_no_labels(task: Task, run: Path) -> None:
    class Wrapped(Tokens):
        """Loads the checkpoints of the tiny model."""

        def load_state_dict(self, state: dict[str, Tensor]) -> None:  # type: ignore[override]
            self.inner.load_state_dict(state)

        def state_dict(self) -> dict[str, Tensor]:  # type: ignore[override]
            return self.inner.state_dict()

    by_position = replace(task, model=Wrapped, loss=lambda outputs, y: outputs.square().sum((1, 2)))
    with pytest.raises(
        TaskError, match=r"the task has labels, so outputs of shape \[b, 10\] were expected; found \(4, 4, 10\)"
    ):
        open_source(by_position, open_run(run))


def test_a_codec_that_cannot_draw_the_inputs_is_refused(task: Task, run: Path) -> None:
    with pytest.raises(TaskError, match=r"cannot draw a training input of shape \(1, 28, 28\)"):
        open_source(replace(task, codec=ImageCodec((27, 28), 1)), open_run(run))


def test_a_test_target_without_a_name_is_refused_before_anything_is_written(
    task: Task, run: Path, tmp_path: Path
) -> None:
    wrong = [(task.train[0][0], 3), (task.train[1][0], 11)]
    with pytest.raises(TaskError, match="row 1 of split 'test': target 11 has no name"):
        build(replace(task, test=wrong), BuildSpec(run), tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_model_that_fails_in_float32_is_refused(task: Task, run: Path) -> None:
    weight = torch.ones(10, dtype=torch.float64)
    with pytest.raises(ProbeError, match="fails on the first training examples in float32, in which vectors are made"):
        open_source(replace(task, loss=lambda o, y: (o @ weight).square() + 0 * y), open_run(run))


def test_tied_weights_are_stored_and_served(task: Task, tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
            self.second.weight = self.first.weight
            self.head = nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            pooled = nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
            outputs: Tensor = self.head(self.second(torch.tanh(self.first(pooled))))
            return outputs

    torch.save(Tied().state_dict(), tmp_path / "tied.pt")
    (tmp_path / "checkpoints.json").write_text('{"checkpoints": [{"file": "tied.pt", "learning_rate": 0.1}]}')
    few = replace(task, model=Tied, train=chosen(task.train, range(20)))
    index = build(few, BuildSpec(tmp_path, projection={"name": "identity"}), tmp_path / "index")
    assert len(Ask.open(index.folder, few).query(Question(KnownExample("test", "0"), k=5)).proponents) == 5
