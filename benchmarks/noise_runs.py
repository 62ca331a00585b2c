"""Training sets with wrong labels that are easy to believe, a run on them and its index: what label noise is found in.

A tenth of the training examples, drawn from one seed before anything is trained, get the most likely wrong class: that
of the highest probability among the wrong ones by a model that was trained on the right labels, as long and as fast as
the one that is trained on the given labels afterwards. Unless told otherwise both begin with the same weights and take
the same batches: what is likely to the first is then hardest for the second to tell from right. MNIST in full (60,000
digits) and 5,000 images of CIFAR-10, each with the model and the schedule of its recipe. Everything is written once to
a folder and read from there afterwards.
"""

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from indexer import BuildSpec, ImageCodec, Task, build
from indexer.atomic import write_atomically
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.formats.listing import LISTING
from indexer.checkpoints.weights import load_into, read_weights
from indexer.index.examples import Examples, open_examples
from indexer.index.versions import is_index, open_version
from indexer.recipes import cifar10, mnist
from indexer.recipes.mnist_sample import read_idx
from indexer.recipes.train import Schedule, train

FLIPPED = 0.1  # share of the training labels
SEED = 0  # of the choice which labels; the schedules have their own
PROJECTION = {"name": "rank1", "numbers": 64, "seed": 0}  # small: self-influence is exact under every projection
BATCH = 500  # images whose loss is computed at once

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Images:
    """Pixels [n, height, width] or [n, height, width, channels] and right classes [n], for training and for testing."""

    x_train: UInt8[np.ndarray, "n ..."]
    y_train: UInt8[np.ndarray, " n"]
    x_test: UInt8[np.ndarray, "t ..."]
    y_test: UInt8[np.ndarray, " t"]
    names: list[str]


@dataclass(frozen=True, slots=True)
class Setting:
    """A data set, the model that is trained on it, how long and how fast.

    clean_seed: of the training on the right labels: first weights and batches.
    """

    name: str
    title: str
    read: Callable[[Path], Images]
    model: Callable[[], nn.Module]
    schedule: Schedule
    clean_seed: int = 0

    def with_clean_seed(self, seed: int) -> "Setting":
        """Return the setting with another clean training, under a name of its own; itself where it has that one."""
        if seed == self.clean_seed:
            return self
        return replace(self, name=f"{self.name}_clean_seed_{seed}", clean_seed=seed)

    def task(self, images: Images, given: UInt8[np.ndarray, " n"]) -> Task:
        """Return the task of training with some labels."""
        height, width = images.x_train.shape[1:3]
        channels = 1 if images.x_train.ndim == 3 else images.x_train.shape[3]
        codec = ImageCodec(size=(height, width), channels=channels)
        train = as_examples(images.x_train, given)
        return Task(model=self.model, loss=mnist.loss, train=train, codec=codec, labels=images.names)

    def folder(self, work: Path) -> Path:
        """Return where runs and index are kept: another schedule is another folder."""
        s = self.schedule
        return work / f"{self.name}-{s.epochs}-epochs-rate-{s.learning_rate:g}-batch-{s.batch_size}-seed-{s.seed}"


@dataclass(frozen=True, slots=True)
class NoisyRun:
    """A training with wrong labels: the examples in its index, and what its model makes of them at the end.

    losses: of the training examples at their given labels. learnt: share of the wrong labels that it gives back.
    accuracy: share of the test examples that it gets right. epochs: of the index's checkpoints.
    """

    examples: Examples
    true_labels: list[str]
    wrong: Bool[np.ndarray, " n"]
    losses: Float[np.ndarray, " n"]
    learnt: float
    accuracy: float
    epochs: tuple[float, ...]


def read_mnist(folder: Path) -> Images:
    """Return the digits of the four original IDX files below a folder of data.

    Raises:
        SystemExit: they are not there.
    """
    names = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    paths = [folder / "mnist" / name for name in names]
    absent = next((path for path in paths if not path.is_file()), None)
    if absent is not None:
        raise SystemExit(
            f"expected MNIST at {str(absent)!r}, found no file; PROPONENT_DATA names the folder above mnist"
        )
    x_train, y_train, x_test, y_test = map(read_idx, paths)
    return Images(x_train, y_train, x_test, y_test, [str(digit) for digit in range(10)])


def read_cifar10(folder: Path) -> Images:
    """Return the images of the recipe's file below a folder of data."""
    arrays = cifar10.sample(folder)
    names = [str(name) for name in arrays.pop("label_names")]
    return Images(**arrays, names=names)


SETTINGS = {
    "mnist": Setting("mnist", "MNIST, 60,000 digits", read_mnist, mnist.model, mnist.SCHEDULE),
    "cifar10": Setting("cifar10", "CIFAR-10, 5,000 images", read_cifar10, cifar10.model, cifar10.SCHEDULE),
}


def as_examples(images: UInt8[np.ndarray, "n ..."], labels: UInt8[np.ndarray, " n"]) -> TensorDataset:
    """Return (pixels [channels, height, width] in 0..1, class) pairs."""
    pixels = torch.tensor(images.reshape(*images.shape[:3], -1)).permute(0, 3, 1, 2)  # a copy: files are read-only
    return TensorDataset(pixels.float().div(255).contiguous(), torch.tensor(labels).long())


def most_likely_wrong(outputs: Float[np.ndarray, "b v"], right: UInt8[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
    """Return the class of the highest output among those that are wrong.

    >>> most_likely_wrong(np.array([[9.0, 1.0, 2.0], [0.0, 5.0, 1.0]]), np.array([0, 2], dtype=np.uint8)).tolist()
    [2, 1]
    """
    others = outputs.copy()
    others[np.arange(len(right)), right] = -np.inf
    best: np.ndarray = others.argmax(axis=1)
    return best


def flipped_rows(n: int) -> Int[np.ndarray, " w"]:
    """Return the rows whose label is to be wrong; they depend on nothing but their number.

    >>> len(flipped_rows(200)), len(set(flipped_rows(200).tolist()))
    (20, 20)
    """
    return np.random.default_rng(SEED).choice(n, round(FLIPPED * n), replace=False)


def noisy_run(setting: Setting, data: Path, work: Path, say: Say) -> NoisyRun:
    """Return a run on wrong labels, from the folder of work where it is there already."""
    images, folder = setting.read(data), setting.folder(work)
    given = _given_labels(setting, images, folder, say)
    task, run = setting.task(images, given), folder / "noisy"
    _train(task, setting.schedule, run, say)
    if not is_index(folder / "index"):
        build(task, BuildSpec(run, projection=PROJECTION), folder / "index", partial(_said, say, "index"))
    version = open_version(folder / "index")
    train, test = as_examples(images.x_train, given), as_examples(images.x_test, images.y_test)
    wrong = given != images.y_train
    return NoisyRun(
        examples=open_examples(version.objects, version.manifest),
        true_labels=[images.names[label] for label in images.y_train],
        wrong=wrong,
        losses=at_the_end(task, run, train, task.loss),
        learnt=float(at_the_end(task, run, train, _right)[wrong].mean()),
        accuracy=float(at_the_end(task, run, test, _right).mean()),
        epochs=tuple(checkpoint.epoch or 0.0 for checkpoint in version.manifest.checkpoints),
    )


def at_the_end(
    task: Task, run: Path, examples: TensorDataset, measure: Callable[[Tensor, Tensor], Tensor]
) -> Float[np.ndarray, "n ..."]:
    """Return a measure of (outputs, targets) for each example, by the model at the last checkpoint of a run."""
    path = open_run(run).checkpoints[-1].path
    module = task.model().eval()
    load_into(module, read_weights(path), path.name)
    batches = zip(*(torch.split(tensor, BATCH) for tensor in examples.tensors), strict=True)
    with torch.no_grad():
        found: np.ndarray = torch.cat([measure(module(inputs), targets) for inputs, targets in batches]).numpy()
    return found


def _right(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.argmax(dim=1) == targets


def _given_labels(setting: Setting, images: Images, folder: Path, say: Say) -> UInt8[np.ndarray, " n"]:
    """Return the labels to train with; kept, because the most likely class may hang on the last digit of an output."""
    kept = folder / "given.npy"
    if not kept.is_file():
        clean, rows = setting.task(images, images.y_train), flipped_rows(len(images.y_train))
        _train(clean, replace(setting.schedule, seed=setting.clean_seed), folder / "clean", say)
        chosen = as_examples(images.x_train[rows], images.y_train[rows])
        outputs = at_the_end(clean, folder / "clean", chosen, lambda outputs, targets: outputs)
        given = images.y_train.copy()
        given[rows] = most_likely_wrong(outputs, given[rows])
        file = io.BytesIO()
        np.save(file, given)
        write_atomically(kept, file.getvalue())
    labels: np.ndarray = np.load(kept)
    return labels


def _train(task: Task, schedule: Schedule, folder: Path, say: Say) -> None:
    if not (folder / LISTING).is_file():
        shutil.rmtree(folder, ignore_errors=True)  # a run that was cut off
        train(task, schedule, folder, partial(_said, say, f"{folder.parent.name}, {folder.name}"))


def _said(say: Say, what: str, stage: str, done: int, total: int) -> None:
    say(f"{what}: {done} of {total} {stage}")
