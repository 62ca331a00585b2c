"""Opening an index with the task that it was built with: everything verified before the first answer."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from indexer.ask.indexed import indexed_batch, other_labels
from indexer.building.vectors import row_scales
from indexer.checkpoints.states import model_states
from indexer.checkpoints.weights import load_adapter_into, load_into
from indexer.errors import BuildError, CheckpointError, CorruptIndexError, TaskMismatchError
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.layout import Block
from indexer.gradients.outputs import difference, fixed_rows, probe_outputs
from indexer.gradients.probe import PROBE_ROWS, probe
from indexer.index.code import scales_of
from indexer.index.examples import Example, Examples, open_examples
from indexer.index.manifest import BlockEntry
from indexer.index.objects import ObjectRef
from indexer.index.search.candidates import Search
from indexer.index.search.opening import open_search
from indexer.index.store import VectorStore, open_store
from indexer.index.tombstones import read_tombstones
from indexer.index.versions import IndexVersion, open_version
from indexer.methods.method import Method
from indexer.methods.registry import method_kind
from indexer.task import Task, read_rows

VECTOR_TOLERANCE = 1e-3  # of a row's norm, for most rows: float32 elsewhere errs by 1e-5; a kink may flip in one
RANDOM_TOLERANCE = 1e-5  # relative: the inverse normal distribution function may differ in its last bits


@dataclass(frozen=True, slots=True)
class OpenIndex:
    """A version of an index in memory, with the task's model at its checkpoints.

    norms: of the rows' gradients, where known. living: rows that are not deleted; None where all are. newer_rows: how
    many training examples the task has behind the last one that was ever in the index.
    """

    version: IndexVersion
    model: ModelAtCheckpoints
    method: Method
    store: VectorStore
    search: Search
    examples: Examples
    norms: Float[np.ndarray, " n"] | None
    living: Bool[np.ndarray, " n"] | None
    newer_rows: int


def open_index(folder: Path, task: Task, version: str | None = None) -> OpenIndex:
    """Verify every file of a version, the active one unless another is named, then the task; make ready to answer.

    Raises:
        UnknownIndexError: the folder holds no finished index.
        CorruptIndexError: a file is not what the manifest says.
        TaskMismatchError: the task is not the one that the index was built with.
    """
    opened = open_version(folder, version)
    for _ in opened.verify():
        pass
    manifest = opened.manifest
    store = open_store(opened.objects, manifest.vectors)
    examples = open_examples(opened.objects, manifest)
    examples.check([entry.splits for entry in manifest.examples], manifest.vectors.rows)
    living = _living(opened)
    newer_rows = _newer_rows(opened, task, examples)
    model = _model(opened, task)
    _check_task(opened, task, model, examples)
    method = _method(opened, model)
    _check_vectors(opened, task, method, store, _some(examples, living, len(store)))
    norms = _norms(store, examples)
    search = open_search(opened.objects, manifest.search, store, norms)
    return OpenIndex(opened, model, method, store, search, examples, norms, living, newer_rows)


def _living(version: IndexVersion) -> Bool[np.ndarray, " n"] | None:
    """Return which rows are not deleted; None for all."""
    vectors = version.manifest.vectors
    if vectors.deleted is None:
        return None
    living = np.ones(vectors.rows, bool)
    living[read_tombstones(version.objects, vectors.deleted, vectors.rows)] = False
    return living


def _newer_rows(version: IndexVersion, task: Task, examples: Examples) -> int:
    """Return how many rows the task has behind those of the index.

    Raises:
        TaskMismatchError: it has fewer.
    """
    known = max(examples.next_row("train"), version.manifest.next_row or 0)
    if len(task.train) < known:
        raise TaskMismatchError(
            f"{_built(version)} has training examples up to row {known - 1:,}; the task has {len(task.train):,} rows. "
            "Rows keep their numbers: delete examples from the index, not from the data"
        )
    return len(task.train) - known


def _norms(store: VectorStore, examples: Examples) -> Float[np.ndarray, " n"] | None:
    """Return the norms of the gradients: what coded rows are relative to, or the roots of self-influence."""
    if next(examples.self_influence(count=1), None) is None:
        return None
    return np.sqrt(examples.totals()) if store.code is None else store.scales()


def _model(version: IndexVersion, task: Task) -> ModelAtCheckpoints:
    manifest = version.manifest
    if task.codec.describe() != manifest.task.input:
        raise TaskMismatchError(
            f"{_built(version)} takes inputs {manifest.task.input}; the task's codec {task.codec.describe()}"
        )
    labels = None if task.labels is None else list(task.labels)
    if labels != manifest.task.labels:
        raise TaskMismatchError(f"{_built(version)} has the labels {manifest.task.labels}; the task has {labels}")
    module = copy.deepcopy(task.model())
    stored = ((f"checkpoint {c.file!r}", _tensors(version, c.object)) for c in manifest.checkpoints)
    try:
        adapter = manifest.checkpoints[0].adapter
        states = model_states(module, stored, load_adapter_into if adapter else load_into)
    except CheckpointError as exc:
        raise TaskMismatchError(f"{_built(version)} was built with another model: {exc}") from exc
    chosen = [name for block in manifest.blocks for name in block.parameters]
    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not trainable.issuperset(chosen):
        gone = next(name for name in chosen if name not in trainable)
        raise TaskMismatchError(
            f"{_built(version)} has other parameter blocks than the task's model, where {gone!r} is not trainable"
        )
    layout = probe(module, task.loss, read_rows(task.train, range(PROBE_ROWS)), chosen)
    if [_shape(block) for block in layout.blocks] != [(b.name, b.shape, tuple(b.parameters)) for b in manifest.blocks]:
        raise TaskMismatchError(
            f"{_built(version)} has other parameter blocks than the task's model has here: expected "
            f"{_first_other(manifest.blocks, layout.blocks)}; was it built with another model, or by an older version? "
            "Then build a new index"
        )
    return ModelAtCheckpoints(module, states, task.loss, layout, dtype=torch.float32)


def _first_other(stored: Sequence[BlockEntry], found: Sequence[Block]) -> str:
    """Return the first block that is not the same, as it was stored and as it is found."""
    for entry, block in zip_longest(stored, found):
        before = "none" if entry is None else f"{' + '.join(entry.parameters)} of {entry.shape[0]} x {entry.shape[1]}"
        now = "none" if block is None else f"{' + '.join(block.parameters)} of {block.shape[0]} x {block.shape[1]}"
        if before != now:
            return f"{before}, found {now}"
    return "the same in another order"


def _shape(block: Block) -> tuple[str, tuple[int, int], tuple[str, ...]]:
    return block.name, block.shape, block.parameters


def _check_task(version: IndexVersion, task: Task, model: ModelAtCheckpoints, examples: Examples) -> None:
    """Compare the outputs and losses of the probe examples with those that are stored.

    Raises:
        TaskMismatchError: they differ.
    """
    ids = version.manifest.probe.ids
    stored = _tensors(version, version.manifest.probe.object)
    living = examples.positions(None, ids, (), (None, None)).tolist()
    known = {example.id: example for example in examples.at(living)}
    if known:
        columns = [i for i, id in enumerate(ids) if id in known]
        stored = {name: values[:, columns] for name, values in stored.items()}
        probed = [known[ids[i]] for i in columns]
        _check_labels(version, task, probed)
        batch = indexed_batch(task, probed)
    else:  # all are deleted; the task still has their rows, but not the targets of those that were relabelled
        batch, stored = read_rows(task.train, [int(id) for id in ids]), {"outputs": stored["outputs"]}
    differs = difference(probe_outputs(model, batch), stored)
    if differs is not None:
        raise TaskMismatchError(
            f"{_built(version)} was built with another task: {differs}. Serve it with the task, data and code "
            "that it was built with, or build a new index"
        )


def _check_labels(version: IndexVersion, task: Task, probed: Sequence[Example]) -> None:
    """Make sure that the data's labels are those that were indexed, but for a few that were corrected since.

    Raises:
        TaskMismatchError: most of them are not.
    """
    others = other_labels(task, probed)
    if 2 * others > len(probed):
        raise TaskMismatchError(
            f"{_built(version)} was built with another task: {others} of {len(probed)} probe examples have another "
            "label. Serve it with the data that it was built with, or build a new index"
        )


def _check_vectors(
    version: IndexVersion, task: Task, method: Method, store: VectorStore, stored_examples: Sequence[Example]
) -> None:
    """Make the vectors of a few examples once more: equal outputs do not prove equal gradients.

    Coded vectors are held against what their codes allow: coded again, a number may fall to the other side of a step.

    Raises:
        TaskMismatchError: they are not those that are stored.
    """
    rows = [example.position for example in stored_examples if example.position is not None]
    made = method.train_rows(indexed_batch(task, stored_examples))
    found = made.vectors.float().cpu().numpy()
    if store.code is None:
        stored = store.rows(rows)
        lengths = np.linalg.norm(stored, axis=1)
        differs = np.linalg.norm(found - stored, axis=1)
    else:
        records = store.stored(rows)
        lengths = scales_of(records).astype(np.float64)
        scaled = np.abs(row_scales(found, made.self_influence) - lengths)
        differs = np.hypot(store.code.outside(found, records), scaled)
    error = differs / lengths.clip(VECTOR_TOLERANCE)
    if not np.median(error) <= VECTOR_TOLERANCE:
        raise TaskMismatchError(
            f"{_built(version)} was built with another task: the vectors of the probe examples differ by "
            f"{np.median(error):.3g} of their norm. Serve it with the task, data and code that it was built with, "
            "or build a new index"
        )


def _some(examples: Examples, living: Bool[np.ndarray, " n"] | None, rows: int) -> list[Example]:
    """Return up to eight living training examples, evenly spaced."""
    positions = np.arange(rows) if living is None else np.flatnonzero(living)
    return examples.at([int(positions[i]) for i in fixed_rows(len(positions))])


def _method(version: IndexVersion, model: ModelAtCheckpoints) -> Method:
    entry = version.manifest.method
    fitted = {} if entry.fitted is None else _tensors(version, entry.fitted)
    try:
        method = method_kind(entry.name).open(model, version.manifest.etas(), entry.parameters, fitted)
    except BuildError as exc:
        raise CorruptIndexError(
            f"{_built(version)} cannot be opened here: {exc}; was it built by a newer version?"
        ) from exc
    parts = [(part.name, part.start, part.stop) for part in method.parts]
    if parts != [(part.name, part.start, part.stop) for part in version.manifest.vectors.parts]:
        raise CorruptIndexError(f"{_built(version)}: the parts of the vectors are not those of its method; rebuild it")
    _check_random(version, method.random_check)
    return method


def _check_random(version: IndexVersion, drawn: Mapping[str, list[float]]) -> None:
    if drawn.keys() != version.manifest.method.random_check.keys():
        raise CorruptIndexError(f"{_built(version)} has other random matrices than its method draws; rebuild it")
    for name, stored in version.manifest.method.random_check.items():
        expected, found = torch.tensor(stored), torch.tensor(drawn.get(name, []))
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=RANDOM_TOLERANCE):
            raise CorruptIndexError(
                f"{_built(version)}: this machine draws another random matrix {name!r} than the one it was built with; "
                "rebuild it here"
            )


def _tensors(version: IndexVersion, ref: ObjectRef) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(version.objects.read(ref, "tensors"))
    except safetensors.SafetensorError as exc:
        raise CorruptIndexError(f"{version.objects.path(ref)} is not safetensors; rebuild the index") from exc


def _built(version: IndexVersion) -> str:
    return f"index {version.name!r} (version {version.version})"
