"""Ask: a question in, a ranking out.

    example -> query vector at all checkpoints -> search with q and -q -> refine from stored vectors -> Ranking

Only living rows are searched, and of these the ones that the question's filter lets pass.

The search proposes candidates in float32; their stored vectors then give the score as the sum of its parts by
checkpoint, in float64, and the order.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from indexer.ask.filters import Filter, selected_rows
from indexer.ask.indexed import indexed_example
from indexer.ask.opening import OpenIndex, open_index
from indexer.ask.percentile import percentile
from indexer.ask.ranking import GivenExample, Hit, QueryFacts, Question, Ranking
from indexer.errors import QuestionError, UnsupportedExplainError
from indexer.index.search.candidates import Candidates
from indexer.task import Task, read_rows


class Ask:
    """An open index that answers. Not thread-safe: one thread at a time.

    ask = Ask.open("indexes/mnist", load_task("indexer.recipes.mnist:task"))
    ask.query(Question(KnownExample("test", "17"))).proponents[0].id
    """

    def __init__(self, task: Task, index: OpenIndex) -> None:
        self.task = task
        self.index = index
        targets = read_rows(task.train, [0])[1]
        self._target_dtype = targets.dtype
        self.at_own_targets = task.labels is None and targets[0].numel() != 1

    @classmethod
    def open(cls, folder: str | Path, task: Task, version: str | None = None) -> "Ask":
        """Open and verify a version, the active one unless named; raises what `indexer.ask.opening.open_index` does."""
        return cls(task, open_index(Path(folder), task, version))

    def close(self) -> None:
        """Release the files."""
        self.index.examples.close()

    def query(self, question: Question) -> Ranking:
        """Answer one question.

        Raises:
            QuestionError: it cannot be answered as asked.
        """
        clock = _Clock()
        self._check(question)
        inputs, own = self._input(question)
        inputs = inputs[None]
        clock.lap("decode")
        facts, target = self._facts(question, inputs, own)
        vectors, _ = self.index.method.query_vectors((inputs, target[None]))
        query = vectors.float().numpy()
        if not np.isfinite(query).all():
            raise QuestionError(
                "the gradient of the loss at this example is not finite; ask at a target near those of the training set"
            )
        clock.lap("gradients")
        rows = self._rows(question.filter)
        [candidates] = self.index.search.search(query, question.k, question.view, rows)
        clock.lap("search")
        proponents, opponents = self._hits(query[0], candidates, question)
        clock.lap("fetch")
        version = self.index.version
        return Ranking(
            index=version.name,
            version=version.version,
            fingerprint=version.fingerprint,
            method=version.manifest.method.name,
            explain=question.explain,
            exact=self.index.method.exact_vectors,
            exhaustive=candidates.exhaustive,
            query=facts,
            proponents=proponents,
            opponents=opponents,
            milliseconds=clock.finish(),
            warnings=tuple(self._warnings()),
            view=question.view,
        )

    def _check(self, question: Question) -> None:
        if question.k < 1:
            raise QuestionError(f"k = {question.k}: expected at least 1")
        if question.explain not in self.index.method.explains:
            known = ", ".join(map(repr, sorted(self.index.method.explains)))
            raise UnsupportedExplainError(f"this index explains {known}; found {question.explain!r}")

    def _input(self, question: Question) -> tuple[Tensor, Tensor | None]:
        """Read the input and its own target; one from the task's data must still be what the index was built with."""
        example = question.example
        if isinstance(example, GivenExample):
            return self.task.codec.decode(example.payload), None
        return indexed_example(self.task, self.index.examples.find(example.split, example.id))

    def _rows(self, wanted: Filter | None) -> Bool[np.ndarray, " n"] | None:
        """Return which rows may be answered; None for all."""
        index = self.index
        if wanted is None:
            return index.living
        return selected_rows(wanted, index.examples, self.task.labels, len(index.store))

    def _warnings(self) -> list[str]:
        version, more = self.index.version, self.index.newer_rows
        found = list(version.manifest.caveats)
        if more:
            rows = "1 training example" if more == 1 else f"{more:,} training examples"
            found.append(f"the task has {rows} more than this index: add what is new with `proponent append`")
        return found

    def _facts(self, question: Question, inputs: Tensor, own: Tensor | None) -> tuple[QueryFacts, Tensor]:
        """Return what the last checkpoint says, and the target whose loss is explained.

        Raises:
            QuestionError: a label for a regression, or a target for a classification.
        """
        outputs = self.index.model.outputs(len(self.index.model) - 1, inputs)
        labels = self.task.labels
        predicted: str | None = None
        probabilities: dict[str, float] = {}
        if self.at_own_targets:
            target = _own_target(question, own)
        elif labels is None:
            if question.target is None or question.label is not None:
                raise QuestionError("this index is of a regression: expected a target and no label")
            target = torch.tensor(question.target)
        else:
            if question.target is not None:
                raise QuestionError("this index is of a classification: expected a label, found a target")
            shares = outputs[0].softmax(-1)
            predicted = labels[int(shares.argmax())]
            probabilities = dict(zip(labels, shares.tolist(), strict=True))
            target = self.task.target_of(predicted if question.label is None else question.label)
        target = target.to(self._target_dtype)
        loss = self.task.loss(outputs, target[None])[0].item()
        if not math.isfinite(loss):
            raise QuestionError(
                "the loss at this label or target is not finite; ask at one near those of the training set"
            )
        given = question.label is not None or question.target is not None
        source = "own" if self.at_own_targets else "given" if given else "predicted"
        return QueryFacts(self.task.label_of(target), source, predicted, probabilities, loss), target

    def _hits(
        self, query: np.ndarray, candidates: Candidates, question: Question
    ) -> tuple[tuple[Hit, ...], tuple[Hit, ...]]:
        proponents = self._ranked(query, candidates.proponents, question, sign=-1)
        return proponents, self._ranked(query, candidates.opponents, question, sign=1)

    def _ranked(self, query: np.ndarray, positions: Sequence[int], question: Question, sign: int) -> tuple[Hit, ...]:
        """Score the candidates from their stored vectors, and keep the best k; sign 1 sorts upwards."""
        parts = self._parts(query, positions, question)
        scores = parts.sum(axis=1)
        examples = self.index.examples.at(positions)
        card = self.index.version.manifest.card if question.view == "dot" else None
        order = sorted(range(len(positions)), key=lambda i: (sign * scores[i], examples[i].split, examples[i].id))
        return tuple(
            Hit(
                rank=rank,
                split=examples[i].split,
                id=examples[i].id,
                label=examples[i].label,
                score=float(scores[i]),
                per_checkpoint=tuple(parts[i].tolist()),
                self_influence=examples[i].total,
                percentile=None if card is None else percentile(float(scores[i]), card.reference),
            )
            for rank, i in enumerate(order[: question.k], 1)
        )

    def _parts(self, query: np.ndarray, positions: Sequence[int], question: Question) -> Float[np.ndarray, "k c"]:
        """Return the parts of the candidates' scores by checkpoint; over the norm of each in the normalised view."""
        starts = [part.start for part in self.index.method.parts]
        wide = query.astype(np.float64)
        # number by number, and not `@`: BLAS may round equal rows differently, and equal scores are ordered by id
        parts: np.ndarray = np.add.reduceat(self.index.store.rows(positions) * wide, starts, axis=1)
        if question.view == "dot":
            return parts
        assert self.index.norms is not None, "the search refuses the view where there are no norms"
        norms = self.index.norms[list(positions)].astype(np.float64)[:, None]
        over: np.ndarray = np.divide(parts, norms, out=np.zeros_like(parts), where=norms > 0)
        return over


def _own_target(question: Question, own: Tensor | None) -> Tensor:
    """Return the target that a known example of a sequence model has.

    Raises:
        QuestionError: the example is not known, or another target was given.
    """
    if own is None or question.label is not None or question.target is not None:
        raise QuestionError(
            "this index has several targets an example: ask about an example of its own data, whose loss at its own "
            "targets is explained; expected no label and no target"
        )
    return own


class _Clock:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._laps[stage] = 1000 * (now - self._last)
        self._last = now

    def finish(self) -> dict[str, float]:
        return self._laps | {"total": 1000 * (time.perf_counter() - self._start)}
