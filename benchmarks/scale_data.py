"""What the benchmarks of search and growth work on: an index of 60,000 digits, questions, and as many rows as wanted.

The recipe's model, trained on all of MNIST; an index with the settings that a build has by itself; the vectors of test
digits at their own labels, which no training saw; and stores of mixtures (`benchmarks.mixtures`), coded by the code of
that index and cut into shards as a build cuts them. Everything is written once to a folder of work and read from there.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from benchmarks.mixtures import mixture_chunks
from benchmarks.noise_runs import SETTINGS, as_examples
from indexer import Ask, BuildSpec, Task, build
from indexer.atomic import write_atomically
from indexer.building.vectors import row_scales
from indexer.checkpoints.formats.listing import LISTING
from indexer.index.code import Code
from indexer.index.manifest import VectorsEntry
from indexer.index.objects import Objects
from indexer.index.store import VectorStore, VectorWriter, open_store
from indexer.index.versions import IndexVersion, is_index, open_version
from indexer.recipes.train import train
from indexer.task import read_rows

SHARD_ROWS = 8192  # as a build cuts them: 64 batches of 128
QUESTIONS = 1000  # test digits
SEED = 0  # of the mixtures
ENTRY = "vectors.json"

Say = Callable[[str], None]
Vectors = Float32[np.ndarray, "n m"]


@dataclass(frozen=True, slots=True)
class Stored:
    """Coded vectors in a folder of their own: vectors.json is their entry, and everything else lies in objects."""

    folder: Path
    entry: VectorsEntry

    @property
    def objects(self) -> Objects:
        """Where its files lie."""
        return Objects(self.folder / "objects")

    def open(self) -> VectorStore:
        """Map them."""
        return open_store(self.objects, self.entry)


def read_stored(folder: Path) -> Stored:
    """Return the vectors of a folder."""
    return Stored(folder, VectorsEntry.model_validate_json((folder / ENTRY).read_bytes()))


def digits_task(data: Path, rows: int | None = None, tests: int | None = None) -> Task:
    """Return the task of the first so many of MNIST's 60,000 digits, each at its right label, and of its test digits.

    None takes all.
    """
    setting = SETTINGS["mnist"]
    images = setting.read(data)
    kept = replace(images, x_train=images.x_train[:rows], y_train=images.y_train[:rows])
    test = as_examples(images.x_test[:tests], images.y_test[:tests])
    return replace(setting.task(kept, kept.y_train), test=test)


def trained(data: Path, work: Path, say: Say) -> Path:
    """Return the recipe's run on all digits."""
    run = work / "run"
    if not (run / LISTING).is_file():
        train(digits_task(data), SETTINGS["mnist"].schedule, run, partial(_said, say, "training"))
    return run


def real_rows(data: Path, work: Path, say: Say) -> Stored:
    """Return the vectors of an index of all digits, in a folder of their own."""
    folder = work / "real"
    if not (folder / ENTRY).is_file():
        version = digits_index(data, work, say)
        entry = version.manifest.vectors
        for ref in version.manifest.objects().values():
            if ref in [entry.code.object if entry.code else None, *(shard.object for shard in entry.shards)]:
                Objects(folder / "objects").add(version.objects.read(ref, "vectors"))
        write_atomically(folder / ENTRY, entry.model_dump_json().encode())
    return read_stored(folder)


def digits_index(data: Path, work: Path, say: Say) -> IndexVersion:
    """Return the index of all digits, with the settings that a build has by itself."""
    folder = work / "index"
    if not is_index(folder):
        build(digits_task(data), BuildSpec(trained(data, work, say)), folder, partial(_said, say, "index"))
    return open_version(folder)


def questions(data: Path, work: Path) -> Vectors:
    """Return the vectors of the first test digits at their own labels, made one at a time, as a server makes them."""
    kept = work / "queries.npy"
    if not kept.is_file():
        task = digits_task(data)
        ask = Ask.open(work / "index", task)
        test = task.split("test") or ()
        asked = (read_rows(test, [row]) for row in range(min(QUESTIONS, len(test))))
        vectors = torch.cat([ask.index.method.query_vectors(question)[0] for question in asked])
        ask.close()
        file = io.BytesIO()
        np.save(file, vectors.float().numpy())
        write_atomically(kept, file.getvalue())
    found: Vectors = np.load(kept)
    return found


def tuning_half(queries: Vectors) -> Vectors:
    """Return the questions that a search may be tuned on."""
    return queries[: len(queries) // 2]


def asked_half(queries: Vectors) -> Vectors:
    """Return the questions that it is asked, none of which it has seen."""
    return queries[len(queries) // 2 :]


def mixtures(real: Stored, rows: int, work: Path, seed: int = SEED) -> Stored:
    """Return mixtures of the vectors of an index, coded by its code."""
    folder = work / f"mixtures-{rows}-seed-{seed}"
    if not (folder / ENTRY).is_file():
        store, objects = real.open(), Objects(folder / "objects")
        assert store.code is not None, "an index that is built by itself is coded"
        of = np.concatenate([store.code.values(records) for _, records in store.pieces(SHARD_ROWS)])
        writer = VectorWriter(objects, store.width, store.code, shard_bytes=SHARD_ROWS * store.row_bytes)
        for chunk in mixture_chunks(of, rows, seed):
            vectors = in_place(chunk, store.code)
            writer.add(vectors, row_scales(vectors, None))
        objects.add(store.code.tensors())
        entry = real.entry.model_copy(update={"rows": rows, "shards": writer.finish()})
        write_atomically(folder / ENTRY, entry.model_dump_json().encode())
    return read_stored(folder)


def in_place(values: Float32[np.ndarray, "c s"], code: Code) -> Float32[np.ndarray, "c m"]:
    """Return vectors from their stored coordinates in coded order; what is not stored is 0."""
    vectors = np.zeros((len(values), code.width), np.float32)
    vectors[:, code.order] = values
    return vectors


def _said(say: Say, what: str, stage: str, done: int, total: int) -> None:
    say(f"{what}: {done} of {total} {stage}")
