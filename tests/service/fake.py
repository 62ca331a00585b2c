"""A small engine without a model: it says what it was asked, answers with fixed numbers, or fails as it is told to."""

from pathlib import Path

from indexer import Hit, Preview, Question, Ranking
from indexer.ask.ranking import QueryFacts
from indexer.errors import UnknownIndexError
from indexer.index import manifest as m
from indexer.index.examples import Example, ExampleRow, Examples, write_examples
from indexer.index.objects import ObjectRef
from indexer.index.versions import IndexVersion
from service.engine import Answer

NAME = "fake"
PREVIEW = Preview("image/png", b"\x89PNG\r\n\x1a\n of nothing")
_REF = ObjectRef(sha256="0" * 64, bytes=1)


def fake_manifest(modality: str) -> m.Manifest:
    """Two checkpoints, three training examples, two test examples, two labels."""
    checkpoints = [
        m.CheckpointEntry(object=_REF, file=f"{i}.pt", learning_rate=0.1, eta=0.1, step=i, epoch=None, train_loss=0.5)
        for i in (1, 2)
    ]
    return m.Manifest(
        format=1,
        method=m.MethodEntry(
            name="fake method", parameters={"seed": 3}, fitted=None, random_scheme="philox-icdf-1", random_check={}
        ),
        task=m.TaskEntry(labels=["cat", "dog"], input={"modality": modality}),
        checkpoints=checkpoints,
        eta_convention="learning_rate",
        blocks=[],
        sequential=None,
        vectors=m.VectorsEntry(dtype="<f4", rows=3, width=4, parts=[], shards=[]),
        search=m.SearchEntry(kind="flat"),
        examples=[m.ExamplesEntry(object=_REF, splits={"train": 3, "test": 2})],
        probe=m.ProbeEntry(object=_REF, ids=["0"]),
        plan=m.Plan(batch_size=1, threads=1, dtype="float32", versions={}),
    )


def fake_ranking() -> Ranking:
    """One proponent and one opponent, two checkpoints."""
    return Ranking(
        index=NAME,
        version="1" * 16,
        fingerprint=f"sha256:{'1' * 64}",
        method="fake method",
        explain="loss",
        exact=False,
        exhaustive=True,
        query=QueryFacts("cat", "predicted", "cat", {"cat": 0.75, "dog": 0.25}, 0.5),
        proponents=(Hit(1, "train", "2", "cat", 3.0, (1.0, 2.0), 4.0, 99.99),),
        opponents=(Hit(1, "train", "0", "dog", -3.0, (-1.0, -2.0), None),),
        milliseconds={"decode": 1.0, "gradients": 2.0, "search": 3.0, "fetch": 4.0, "total": 10.0},
    )


class FakeEngine:
    """Serves one index; set ``failure`` to make every question fail with it."""

    def __init__(self, folder: Path, modality: str = "image") -> None:
        table = folder / "examples.sqlite"
        rows = [
            *(Example("train", str(i), i, i, "cat", "", (0.5, 1.0)) for i in range(3)),
            *(Example("test", str(i), i, None, "dog", "") for i in range(2)),
        ]
        write_examples(table, (ExampleRow(example, PREVIEW) for example in rows))
        self._examples = Examples([table])
        self._version = IndexVersion(folder / NAME, "1" * 16, f"sha256:{'1' * 64}", fake_manifest(modality))
        self.failure: Exception | None = None
        self.asked: list[Question] = []
        self.closed = 0

    def names(self) -> list[str]:
        return [NAME]

    def version(self, name: str) -> IndexVersion:
        if name != NAME:
            raise UnknownIndexError("no index of that name is served; GET /v1/indexes lists them")
        return self._version

    def explains(self, name: str) -> list[str]:
        self.version(name)
        return ["loss"]

    def examples(self, name: str) -> Examples:
        self.version(name)
        return self._examples

    async def query(self, name: str, question: Question) -> Answer:
        self.version(name)
        self.asked.append(question)
        if self.failure is not None:
            raise self.failure
        return Answer(fake_ranking(), queue_ms=0.5)

    def close(self) -> None:
        self.closed += 1
        self._examples.close()
