"""The normalised view: the score over the norm of the training example's gradient, searched and not sorted again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer import Ask, BuildSpec, KnownExample, Question, Task, build
from indexer.errors import QuestionError
from indexer.index.examples import Examples
from indexer.task import read_rows

FLOAT32 = 1e-4  # relative: norms and vectors are float32, and cosines are sums of larger products
QUERIES = range(0, 100, 7)
K = 10

CASES = pytest.mark.parametrize(
    ("projection", "bytes"), [({"name": "identity"}, None), ({"name": "pca", "seed": 0}, 64)], ids=["float32", "coded"]
)


@pytest.fixture
def built(task: Task, run: Path, tmp_path: Path) -> Callable[..., Ask]:
    def make(projection: dict[str, object], bytes: int | None) -> Ask:
        spec = BuildSpec(run, projection=projection, bytes_per_example=bytes, card_queries=5)
        return Ask.open(build(task, spec, tmp_path / "index").folder, task)

    return make


def asked(ask: Ask, row: int, k: int = K) -> tuple[Question, Question]:
    example = KnownExample("test", str(row))
    return Question(example, k=k, view="normalised"), Question(example, k=k)


@CASES
def test_hits_are_those_of_a_scan_over_rows_divided_by_true_norms(
    built: Callable[..., Ask], task: Task, projection: dict[str, object], bytes: int | None
) -> None:
    ask = built(projection, bytes)
    rows = np.concatenate([rows for _, rows in ask.index.store.chunks()]).astype(np.float64)
    norms = np.sqrt(ask.index.examples.totals())
    moved = 0
    for row in QUERIES:
        normalised, plain = (ask.query(question) for question in asked(ask, row))
        inputs, _ = read_rows(task.split("test") or (), [row])
        target = task.target_of(normalised.query.label)[None]
        query = ask.index.method.query_vectors((inputs, target))[0].double().numpy()[0]
        scores = rows @ query / norms
        for hits, sign in ((normalised.proponents, -1), (normalised.opponents, 1)):
            best = np.sort(sign * scores)[:K] * sign
            assert [hit.score for hit in hits] == pytest.approx(best.tolist(), rel=FLOAT32)
            assert [hit.score for hit in hits] == pytest.approx([scores[int(hit.id)] for hit in hits], rel=FLOAT32)
            assert [sum(hit.per_checkpoint) for hit in hits] == pytest.approx([hit.score for hit in hits], rel=1e-9)
            assert all(hit.percentile is None for hit in hits)
        assert (normalised.view, plain.view) == ("normalised", "dot")
        moved += [hit.id for hit in normalised.proponents] != [hit.id for hit in plain.proponents]
    assert moved > len(QUERIES) / 2
    ask.close()


@CASES
def test_an_example_is_its_own_nearest_in_the_normalised_view(
    built: Callable[..., Ask], projection: dict[str, object], bytes: int | None
) -> None:
    """Cauchy-Schwarz: nothing has a larger cosine with a gradient than itself; coded rows come near."""
    ask = built(projection, bytes)
    first = 0
    for row in range(0, 300, 30):
        example = ask.index.examples.find("train", str(row))
        question = Question(KnownExample("train", str(row)), label=example.label, k=1, view="normalised")
        [hit] = ask.query(question).proponents
        first += hit.id == str(row)
    assert first == 10 if bytes is None else first >= 8
    ask.close()


def test_an_index_without_norms_refuses_the_view(
    built: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch, task: Task
) -> None:
    folder = built({"name": "identity"}, None).index.version.folder
    monkeypatch.setattr(Examples, "self_influence", lambda self, **wanted: iter(()))
    ask = Ask.open(folder, task)
    with pytest.raises(QuestionError, match="ask for the view 'dot'"):
        ask.query(asked(ask, 0)[0])
    assert ask.query(asked(ask, 0)[1]).proponents
    ask.close()
