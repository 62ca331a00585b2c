"""What is served: the list of indexes, and everything about one of them."""

from collections.abc import Callable
from pathlib import Path

from starlette.testclient import TestClient

from indexer import Ask, Task
from indexer.index.versions import open_version
from service.app import create_app
from service.engine import WarmEngine
from service.schemas import IndexDetail, IndexList, IndexSummary
from service.settings import Settings
from tests.cards import DOCUMENT, card, give_card
from tests.service.asking import asked, problem_of
from tests.tiny import LABELS


def test_the_list_names_version_method_and_rows(client: TestClient) -> None:
    found = IndexList.model_validate_json(client.get("/v1/indexes").content)
    assert found.indexes == [
        IndexSummary(
            name="fake",
            version="1" * 16,
            fingerprint=f"sha256:{'1' * 64}",
            method="fake method",
            rows=3,
            splits={"train": 3, "test": 2},
        )
    ]


def test_one_index_is_its_summary_and_more(client: TestClient, settings: Settings) -> None:
    [summary] = client.get("/v1/indexes").json()["indexes"]
    detail = client.get("/v1/indexes/fake").json()
    assert summary.items() <= detail.items()
    assert detail["limits"] == {"max_k": 300, "max_body_bytes": 5000, "page_size": 40}
    assert (detail["labels"], detail["explains"]) == (["cat", "dog"], ["loss"])
    assert (detail["width"], detail["parameters"]) == (4, {"seed": 3})
    assert (detail["eta_convention"], detail["choice"], detail["card"]) == ("learning_rate", None, None)
    assert detail["checkpoints"][1] == {
        "file": "2.pt",
        "learning_rate": 0.1,
        "eta": 0.1,
        "rates": [],
        "step": 2,
        "epoch": None,
        "train_loss": 0.5,
    }


def test_the_detail_of_a_real_index_is_what_its_manifest_says(
    served: TestClient, index_folder: Path, task: Task
) -> None:
    version = open_version(index_folder)
    detail = IndexDetail.model_validate_json(served.get("/v1/indexes/tiny").content)
    assert (detail.version, detail.fingerprint) == (version.version, version.fingerprint)
    assert detail.labels == LABELS
    assert detail.input == task.codec.describe()
    assert (detail.rows, detail.splits, detail.method) == (300, {"train": 300, "test": 100}, "tracin")
    assert detail.width == version.manifest.vectors.width
    assert detail.parameters == {"projection": {"name": "identity"}}
    assert [c.file for c in detail.checkpoints] == [f"epoch-0{i}.safetensors" for i in (1, 3, 6)]
    losses = [checkpoint.train_loss or 0 for checkpoint in detail.checkpoints]
    assert losses == sorted(losses, reverse=True) != []


def test_the_card_is_served_and_hits_have_their_percentile(
    index_folder: Path, task: Task, settings: Settings, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(index_folder)
    give_card(folder, card())
    with TestClient(create_app(lambda: WarmEngine({"tiny": Ask.open(folder, task)}), settings)) as client:
        detail = client.get("/v1/indexes/tiny")
        answer = asked(client, k=300)
    assert detail.json()["card"] == DOCUMENT
    assert IndexDetail.model_validate_json(detail.content, strict=True).model_dump(mode="json") == detail.json()
    found = [hit.percentile for hit in answer.proponents or ()]
    assert found == sorted(found, key=lambda percentile: -(percentile or 0.0))
    assert 100 >= (found[0] or 0) > 75 > 25 > (found[-1] or 0) >= 0


def test_an_unknown_index_is_a_404(client: TestClient) -> None:
    found = problem_of(client.get("/v1/indexes/nope"))
    assert (found.status, found.detail) == (404, "no index of that name is served; GET /v1/indexes lists them")
