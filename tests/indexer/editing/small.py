"""A task of 4 x 4 images that is so small that an index of it opens in 20 ms, and a fresh build to compare edits with.

What is compared uses no code of `indexer.editing`: an index that was edited must be one that was built of its rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from indexer import Ask, BuildSpec, ImageCodec, KnownExample, Question, Task, build
from indexer.ask.opening import OpenIndex, open_index
from indexer.building.progress import silent
from indexer.building.vectors import Pass, write_vectors
from indexer.index.manifest import VectorsEntry
from indexer.index.objects import Objects
from indexer.index.store import open_store
from indexer.methods.method import Batch

LABELS = ["round", "square", "star"]
ROWS, BUILT, ASKED = 30, 12, 4
SAME = 1e-5  # of the largest score: batches of other rows change the order of float32 sums


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every example."""
    return F.cross_entropy(outputs, targets, reduction="none")


def model() -> nn.Module:
    """[b, 1, 4, 4] -> [b, 3]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random pictures and labels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 4, 4, generator=generator), torch.randint(0, 3, (count,), generator=generator)


INPUTS, TARGETS = images(ROWS, seed=0)


def small_task(rows: int = ROWS) -> Task:
    """The first rows of the small data set."""
    return Task(
        model=model,
        loss=loss,
        train=TensorDataset(INPUTS[:rows], TARGETS[:rows]),
        test=TensorDataset(*images(ASKED, seed=1)),
        codec=ImageCodec(size=(4, 4), channels=1),
        labels=LABELS,
    )


def small_run(folder: Path) -> Path:
    """Two checkpoints with random weights."""
    for number in (1, 2):
        torch.manual_seed(number)
        safetensors.torch.save_file(model().state_dict(), folder / f"{number}.safetensors")
    entries = [{"file": f"{number}.safetensors", "learning_rate": 0.5 / number, "step": number} for number in (1, 2)]
    (folder / "checkpoints.json").write_bytes(orjson.dumps({"checkpoints": entries}))
    return folder


def small_index(run: Path, out: Path, projection: Mapping[str, Any], rows: int = BUILT) -> Path:
    """Build an index of the first rows."""
    spec = BuildSpec(run, projection=projection, batch_size=8, threads=1, card_queries=0)
    return build(small_task(rows), spec, out).folder


@dataclass(frozen=True)
class Fresh:
    """An index of some examples as a build would have made it: ids, labels, vectors [n, m] and self-influence [n]."""

    ids: list[str]
    labels: list[str]
    vectors: np.ndarray
    totals: np.ndarray
    queries: np.ndarray

    def scores(self, query: int) -> dict[str, float]:
        """Return every score by brute force, in float64."""
        found = self.vectors.astype(np.float64) @ self.queries[query].astype(np.float64)
        return dict(zip(self.ids, found.tolist(), strict=True))


def of_rows(living: Mapping[str, str]) -> Task:
    """Return the task whose training set is these examples: ids with their labels."""
    rows = [int(id) for id in living]
    targets = torch.tensor([LABELS.index(label) for label in living.values()])
    return replace(small_task(), train=TensorDataset(INPUTS[rows], targets))


def built_fresh(living: Mapping[str, str], run: Path, out: Path, projection: Mapping[str, Any]) -> Fresh:
    """Build an index of these examples from nothing."""
    task = of_rows(living)
    spec = BuildSpec(run, projection=projection, batch_size=8, threads=1, card_queries=0)
    opened = open_index(build(task, spec, out).folder, task)
    return _fresh(living, np.concatenate(list(opened.store)), np.asarray(opened.examples.totals()), opened)


def written_fresh(living: Mapping[str, str], first: OpenIndex, objects: Objects) -> Fresh:
    """Write the vectors of these examples anew, under the bases and the code of an index: those are fitted once."""
    entry = first.version.manifest.vectors
    ready = Pass(first.method, first.store.code, first.version.manifest.plan)
    made = write_vectors(of_rows(living), ready, None, objects, silent)
    fields = {**dict(entry), "rows": len(living), "shards": made.shards}
    code = entry.code
    assert code is not None and made.self_influence is not None
    (objects.folder / code.object.sha256).write_bytes(first.version.objects.read(code.object, "code"))
    store = open_store(objects, VectorsEntry.model_validate(fields))
    return _fresh(living, np.concatenate(list(store)), made.self_influence.astype(np.float64).sum(1), first)


def _fresh(living: Mapping[str, str], vectors: np.ndarray, totals: np.ndarray, opened: OpenIndex) -> Fresh:
    asked: Batch = images(ASKED, seed=1)
    queries = opened.method.query_vectors(asked)[0].numpy()
    return Fresh(list(living), list(living.values()), vectors, totals, queries)


def differences(ask: Ask, fresh: Fresh) -> list[str]:
    """Return everything in which an open index is not the fresh one: answers, pages, previews, self-influence."""
    found: list[str] = []
    targets = images(ASKED, seed=1)[1]
    for query in range(ASKED):
        expected = fresh.scores(query)
        close = SAME * max(map(abs, expected.values()))
        question = Question(KnownExample("test", str(query)), label=LABELS[int(targets[query])], k=ROWS)
        answer = ask.query(question)
        for sign, hits in ((1, answer.proponents), (-1, answer.opponents)):
            if {hit.id for hit in hits} != expected.keys() or len(hits) != len(expected):
                found.append(f"query {query}: ids {[hit.id for hit in hits]}, expected {list(expected)}")
                continue
            best = sorted((sign * score for score in expected.values()), reverse=True)
            for hit, rank in zip(hits, best, strict=True):
                off = max(abs(hit.score - expected[hit.id]), abs(sign * hit.score - rank))
                if off > close or hit.label != fresh.labels[fresh.ids.index(hit.id)]:
                    found.append(f"query {query}: {hit}, expected {expected[hit.id]}")
    return found + _other_examples(ask, fresh)


def _other_examples(ask: Ask, fresh: Fresh) -> list[str]:
    examples, found = ask.index.examples, []
    totals = dict(zip(fresh.ids, fresh.totals.tolist(), strict=True))
    labels = dict(zip(fresh.ids, fresh.labels, strict=True))
    in_order = sorted(fresh.ids, key=int)
    pages = [e for start in range(0, ROWS, 7) for e in examples.listing("train", start=start, count=7)]
    if [(e.id, e.label) for e in pages] != [(id, labels[id]) for id in in_order]:
        found.append(f"pages: {[(e.id, e.label) for e in pages]}, expected {labels}")
    for label in LABELS:
        page = examples.listing("train", start=0, count=ROWS, label=label)
        if [e.id for e in page] != [id for id in in_order if labels[id] == label]:
            found.append(f"page of {label}: {[e.id for e in page]}")
    ranked = [(e, value) for e, value in examples.self_influence()]
    best = sorted(totals.values(), reverse=True)
    for (example, value), rank in zip(ranked, best, strict=True):
        if not np.allclose([value, value], [totals[example.id], rank], rtol=1e-4):
            found.append(f"self-influence of {example.id}: {value}, expected {totals[example.id]}, at its rank {rank}")
    codec = small_task().codec
    if any(examples.preview("train", id) != codec.preview(INPUTS[int(id)]) for id in fresh.ids):
        found.append("a preview is another example's")
    if [e.id for e in examples.listing("test", start=0, count=ROWS)] != [str(i) for i in range(ASKED)]:
        found.append("the split test has changed")
    return found
