"""Opening verifies everything: no byte of an index may differ, and no other task is taken for its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from indexer import Ask, BuildSpec, ImageCodec, KnownExample, Question, Task, build
from indexer.ask.opening import open_index
from indexer.errors import CorruptIndexError, TaskMismatchError, UnknownIndexError
from indexer.index.versions import IndexVersion, commit, open_version
from indexer.task import read_rows
from tests.chosen import chosen
from tests.tiny import LABELS, cross_entropy, tiny_model

ROLES = [
    "active",
    "manifest",
    "checkpoint 1 ('epoch-01.safetensors')",
    "checkpoint 2 ('epoch-03.safetensors')",
    "checkpoint 3 ('epoch-06.safetensors')",
    "vectors, shard 1",
    "examples",
    "probe outputs",
]


def files(version: IndexVersion) -> dict[str, Path]:
    """Every file of an index that is verified, by its role."""
    small = {
        "active": version.folder / "active",
        "manifest": version.folder / "versions" / version.version / "manifest.json",
    }
    return small | {role: version.objects.path(ref) for role, ref in version.manifest.objects().items()}


@pytest.fixture
def copy(index_folder: Path, copy_of: Callable[[Path], Path]) -> Path:
    return copy_of(index_folder)


def flip(path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "first byte": lambda path: flip(path, 0),
    "middle byte": lambda path: flip(path, 0.5),
    "last byte": lambda path: flip(path, 1),
    "truncated": truncate,
    "emptied": lambda path: path.write_bytes(b""),
    "extended": lambda path: path.write_bytes(path.read_bytes() + b"0"),
    "deleted": lambda path: path.unlink(),
}


def test_the_roles_are_all_files_but_the_log(index_folder: Path) -> None:
    found = files(open_version(index_folder))
    assert list(found) == ROLES
    every = {path for path in index_folder.rglob("*") if path.is_file()}
    assert set(found.values()) == every - {index_folder / "log.jsonl", index_folder / "lock"}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("role", ROLES)
def test_damage_to_any_file_is_refused_by_its_name(copy: Path, task: Task, role: str, damage: str) -> None:
    path = files(open_version(copy))[role]
    DAMAGES[damage](path)
    unfinished = (role, damage) == ("active", "deleted")
    with pytest.raises(UnknownIndexError if unfinished else CorruptIndexError) as exc:
        open_index(copy, task)
    assert str(copy if unfinished else path) in str(exc.value)


def test_a_sound_index_opens_wherever_it_is_moved(copy: Path, task: Task, tmp_path: Path) -> None:
    moved = copy.rename(tmp_path / "moved")
    (moved / "log.jsonl").unlink()
    opened = open_index(moved, task)
    assert opened.version.name == "moved"
    assert len(opened.store) == 300
    assert opened.store.width == 3 * 410


def test_nothing_is_written_by_opening(index_folder: Path, task: Task) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in index_folder.rglob("*"))
    Ask.open(str(index_folder), task).close()
    assert sorted((path, path.stat().st_mtime_ns) for path in index_folder.rglob("*")) == before


def scaled_model() -> nn.Module:
    """The tiny model with its logits doubled: the same names and shapes."""
    return nn.Sequential(*tiny_model().children(), _Double())


class _Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def wider_model() -> nn.Module:
    return nn.Sequential(*list(tiny_model().children())[:-1], nn.Linear(36, 11))


def half_frozen_model() -> nn.Module:
    module = tiny_model()
    module.get_parameter("5.weight").requires_grad_(False)
    return module


def rolled(task: Task) -> TensorDataset:
    inputs, targets = read_rows(task.train, range(300))
    return TensorDataset(inputs.roll(2, dims=-1), targets)


def relabelled(task: Task, rows: range) -> TensorDataset:
    inputs, targets = read_rows(task.train, range(300))
    targets[list(rows)] = (targets[list(rows)] + 1) % 10
    return TensorDataset(inputs, targets)


OTHERS: dict[str, tuple[Callable[[Task], Task], str]] = {
    "labels": (lambda task: replace(task, labels=LABELS[::-1]), r"has the labels \['0', .*\]; the task has \['9'"),
    "no labels": (lambda task: replace(task, labels=None), r"has the labels \['0', .*\]; the task has None"),
    "fewer rows": (
        lambda task: replace(task, train=chosen(task.train, range(299))),
        "has training examples up to row 299; the task has 299 rows",
    ),
    "order of rows": (
        lambda task: replace(task, train=chosen(task.train, range(299, -1, -1))),
        "was built with another task: 7 of 8 probe examples have another label",
    ),
    "inputs": (
        lambda task: replace(task, train=rolled(task)),
        "was built with another task: (outputs|loss) of the probe examples differ by up to",
    ),
    "targets": (
        lambda task: replace(task, train=relabelled(task, range(300))),
        "was built with another task: 8 of 8 probe examples have another label",
    ),
    "loss": (
        lambda task: replace(task, loss=lambda outputs, targets: 2 * cross_entropy(outputs, targets)),
        "was built with another task: loss of the probe examples differ by up to",
    ),
    "scale": (
        lambda task: replace(task, model=scaled_model),
        "was built with another task: (outputs|loss) of the probe examples differ by up to",
    ),
    "shapes": (lambda task: replace(task, model=wider_model), r"expected '5\.weight' of shape \(11, 36\)"),
    "names": (lambda task: replace(task, model=lambda: nn.Linear(784, 10)), "has no 'weight', which the task's model"),
    "frozen": (lambda task: replace(task, model=half_frozen_model), "has other parameter blocks than the task's mod"),
    "input size": (
        lambda task: replace(task, codec=ImageCodec(size=(14, 14), channels=1)),
        r"takes inputs \{.*'height': 28.*\}; the task's codec \{.*'height': 14",
    ),
    "normalisation": (
        lambda task: replace(task, codec=ImageCodec(size=(28, 28), channels=1, mean=0.5)),
        "takes inputs .*; the task's codec .*0.5",
    ),
}


def test_a_label_that_was_corrected_in_the_data_alone_is_no_other_task(index_folder: Path, task: Task) -> None:
    """Row 0 is a probe example. It is still answered, but not asked about: its label is not what it was."""
    ask = Ask.open(index_folder, replace(task, train=relabelled(task, range(1))))
    assert len(ask.query(Question(KnownExample("test", "17"), k=300)).proponents) == 300
    with pytest.raises(TaskMismatchError, match="example '0' of split 'train' is not what it was"):
        ask.query(Question(KnownExample("train", "0")))


@pytest.mark.parametrize("other", OTHERS)
def test_another_task_is_refused_by_what_differs(index_folder: Path, task: Task, other: str) -> None:
    change, expected = OTHERS[other]
    with pytest.raises(TaskMismatchError, match=f"^index 'tiny'.*{expected}"):
        open_index(index_folder, change(task))


def recommitted(folder: Path, **update: Any) -> IndexVersion:
    """Commit a changed manifest under its right hash."""
    return commit(folder, open_version(folder).manifest.model_copy(update=update))


def test_parts_of_another_method_are_refused(copy: Path, task: Task) -> None:
    vectors = open_version(copy).manifest.vectors
    parts = [part.model_copy(update={"name": f"epoch {i}"}) for i, part in enumerate(vectors.parts)]
    recommitted(copy, vectors=vectors.model_copy(update={"parts": parts}))
    with pytest.raises(CorruptIndexError, match="the parts of the vectors are not those of its method; rebuild it"):
        open_index(copy, task)


def test_probe_outputs_that_are_not_numbers_are_refused(copy: Path, task: Task) -> None:
    version = open_version(copy)
    stored = safetensors.torch.load(version.objects.read(version.manifest.probe.object, "probe"))
    nan = version.objects.add(safetensors.torch.save({**stored, "loss": torch.full_like(stored["loss"], torch.nan)}))
    recommitted(copy, probe=version.manifest.probe.model_copy(update={"object": nan}))
    with pytest.raises(TaskMismatchError, match="loss of the probe examples differ by up to nan"):
        open_index(copy, task)


def test_an_object_that_is_not_safetensors_is_refused(copy: Path, task: Task) -> None:
    version = open_version(copy)
    none = version.objects.add(b"no tensors")
    recommitted(copy, probe=version.manifest.probe.model_copy(update={"object": none}))
    with pytest.raises(CorruptIndexError, match=none.sha256):
        open_index(copy, task)


@pytest.fixture(scope="module")
def projected(tmp_path_factory: pytest.TempPathFactory, task: Task, run: Path) -> Path:
    """50 digits with random projections."""
    small = replace(task, train=chosen(task.train, range(50)), test=None)
    spec = BuildSpec(run, projection={"name": "gaussian", "numbers": 8, "seed": 3})
    return build(small, spec, tmp_path_factory.mktemp("indexes") / "projected").folder


def test_random_matrices_that_come_out_otherwise_are_refused(
    projected: Path, copy_of: Callable[[Path], Path], task: Task
) -> None:
    small = replace(task, train=chosen(task.train, range(50)), test=None)
    assert open_index(projected, small).method.random_check == open_version(projected).manifest.method.random_check
    folder = copy_of(projected)
    method = open_version(folder).manifest.method
    name, numbers = next(iter(method.random_check.items()))
    changed = method.random_check | {name: [*numbers[:-1], numbers[-1] * 1.001]}
    recommitted(folder, method=method.model_copy(update={"random_check": changed}))
    with pytest.raises(CorruptIndexError, match=rf"this machine draws another random matrix '{name}' than the one it"):
        open_index(folder, small)


def test_another_seed_is_refused(projected: Path, copy_of: Callable[[Path], Path], task: Task) -> None:
    folder = copy_of(projected)
    method = open_version(folder).manifest.method
    parameters = {"projection": {**method.parameters["projection"], "seed": 4}}
    recommitted(folder, method=method.model_copy(update={"parameters": parameters}))
    with pytest.raises(CorruptIndexError, match="this machine draws another random matrix"):
        open_index(folder, replace(task, train=chosen(task.train, range(50)), test=None))
