"""A Task: everything that Proponent must know about a user's model, as one value of callables.

    task = Task(model=Net, loss=per_example_loss, train=train_set, codec=ImageCodec((28, 28), 1), labels=DIGITS)

Weights are not part of a task: they come from the checkpoints. An example is named by (split, id), where the
split is ``train`` or ``test`` and the id is the row number within the split, written as a string.
"""

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from indexer.codecs import Codec
from indexer.errors import TaskError, UnknownLabelError

Loss = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class Examples(Protocol):
    """A map-style data set: ``len(examples)`` and ``examples[row]`` -> (input, target)."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> tuple[Any, Any]: ...


@dataclass(frozen=True, slots=True)
class Task:
    """A model, its loss and its data.

    model: () -> nn.Module; weights come from the checkpoints, and the model is always used in ``eval()`` mode.
    loss: (outputs [b, ...], targets [b, ...]) -> [b], one loss an example: ``reduction="none"``; `indexer.losses` has
    those of sequence models.
    train: a map-style data set of (input, target); without random augmentation.
    codec: reads inputs from questions and draws previews.
    test: optional examples to ask about by id.
    labels: names of the classes, in the order of the model's outputs; None for a regression or a sequence model.
    """

    model: Callable[[], nn.Module]
    loss: Loss
    train: Examples
    codec: Codec
    test: Examples | None = None
    labels: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise TaskError("Task(labels=...): expected distinct names, found one twice")

    def split(self, name: str) -> Examples | None:
        """Return the data set of a split, or None where the task has none of that name."""
        return {"train": self.train, "test": self.test}.get(name)

    def label_of(self, target: Tensor) -> str:
        """Return the name of a target: its class, the number itself for a regression, or how many numbers it has.

        Raises:
            TaskError: the target is not an index into ``labels``.
        """
        if self.labels is None and target.numel() != 1:
            return f"{target.numel()} targets"
        if self.labels is None:
            return str(target.detach().reshape(()).numpy()[()])  # the fewest digits that read back as this number
        position = int(target.item())
        if not 0 <= position < len(self.labels):
            raise TaskError(
                f"target {position} has no name: the task has {len(self.labels)} labels, 0 to {len(self.labels) - 1}"
            )
        return self.labels[position]

    def target_of(self, label: str) -> Tensor:
        """Return the target of a label, as the data set gives it.

        Raises:
            UnknownLabelError: the task has no such label.
        """
        names = list(self.labels or ())
        if label not in names:
            raise UnknownLabelError(f"unknown label; expected one of {', '.join(map(repr, names))}")
        return torch.tensor(names.index(label))

    def target_named(self, label: str, like: Tensor) -> Tensor:
        """Return the target that has a label, with the dtype and shape of another target of the data set.

        Raises:
            UnknownLabelError: no class or number is named so, or a target is more than one number.
        """
        if like.numel() != 1:
            raise UnknownLabelError("an example of several targets has no label; expected a task of one target each")
        if self.labels is not None:
            return self.target_of(label).to(like.dtype).reshape(like.shape)
        try:
            return torch.tensor(float(label)).to(like.dtype).reshape(like.shape)
        except ValueError as exc:
            raise UnknownLabelError("unknown label; this is a regression: expected a number") from exc


def read_rows(examples: Examples, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the examples of the rows as (inputs [b, ...], targets [b, ...]).

    Raises:
        TaskError: an example is not an (input tensor, target) pair, or shapes differ between rows.
    """
    inputs, targets = [], []
    for row in rows:
        example = examples[row]
        if not isinstance(example, tuple) or len(example) != 2 or not isinstance(example[0], Tensor):
            kinds = ", ".join(type(part).__name__ for part in example) if isinstance(example, tuple) else ""
            found = f"({kinds})" if kinds else type(example).__name__
            raise TaskError(f"row {row}: expected (input tensor, target), found {found}; wrap the data set")
        inputs.append(example[0])
        try:
            targets.append(torch.as_tensor(example[1]))
        except (TypeError, ValueError, RuntimeError) as exc:
            raise TaskError(f"row {row}: expected a target that is a number, found {example[1]!r}") from exc
        if inputs[-1].shape != inputs[0].shape:
            raise TaskError(
                f"row {row}: expected an input of shape {tuple(inputs[0].shape)}, as at row {rows[0]}, "
                f"found {tuple(inputs[-1].shape)}; pad or resize in the data set"
            )
    return torch.stack(inputs), torch.stack(targets)


def content_hash(value: Tensor, target: Tensor) -> str:
    """Return a hash of an example's input and target: dtype, shape and little-endian bytes."""
    digest = hashlib.sha256()
    for tensor in (value, target):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()[:32]


def load_task(reference: str) -> Task:
    """Load a task from ``path.py:name`` or ``module:name``.

    Raises:
        TaskError: no such file, module or name, or the name is not a ``Task``.
    """
    task = load_name(reference)
    if not isinstance(task, Task):
        raise TaskError(f"task {reference!r}: expected an indexer.Task, found {type(task).__name__}")
    return task


def load_name(reference: str) -> Any:
    """Load anything from ``path.py:name`` or ``module:name``.

    A file's own folder is appended to ``sys.path``, so that it can import its neighbours but never hide
    an installed package.

    Raises:
        TaskError: no such file, module or name.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise TaskError(f"task {reference!r}: expected 'path.py:name' or 'module:name', as in 'digits.py:task'")
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    if not hasattr(module, name):
        raise TaskError(f"task {reference!r}: {place} has no name {name!r}")
    return getattr(module, name)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TaskError(f"task file {str(path)!r} does not exist; give a path from the current folder")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"task file {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    replaced = sys.modules.get(path.stem)
    if replaced is None:  # dataclasses and pickle look their module up there; what is installed is never hidden
        sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as exc:  # whatever the user's file raises
        if replaced is None:
            sys.modules.pop(path.stem, None)
        raise TaskError(f"task file {str(path)!r} fails: {_where(exc)}") from exc
    return module


def _load_module(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(exc.name + ".")):
            raise TaskError(f"task module {name!r} cannot be found; give 'path.py:name' for a file") from exc
        raise TaskError(f"task module {name!r} fails: {_where(exc)}") from exc
    except Exception as exc:  # whatever the user's module raises
        raise TaskError(f"task module {name!r} fails: {_where(exc)}") from exc


def _where(exc: Exception) -> str:
    """Say what was raised, and at which line of whose file."""
    at = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{type(exc).__name__}: {exc} ({at.filename}, line {at.lineno})"
