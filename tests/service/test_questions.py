"""Requests: defaults, what is refused, and that examples in the description are real."""

import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.testclient import TestClient

from service import questions
from service.questions import ImageIn, KnownExampleIn, QueryRequest
from service.schemas import QueryAnswer

KNOWN = {"modality": "id", "split": "test", "id": "17"}


def test_a_question_needs_only_its_example() -> None:
    request = QueryRequest.model_validate({"example": KNOWN})
    assert request.example == KnownExampleIn(modality="id", split="test", id="17")
    assert request.model_dump(exclude={"example"}) == {
        "label": None,
        "target": None,
        "explain": {"quantity": "loss"},
        "view": "dot",
        "filter": None,
        "k": 10,
        "directions": ["proponents", "opponents"],
        "include": ["per_checkpoint", "media"],
    }


def test_the_modality_chooses_the_kind_of_example() -> None:
    request = QueryRequest.model_validate({"example": {"modality": "image", "data": "AAAA"}})
    assert request.example == ImageIn(modality="image", data="AAAA")
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        QueryRequest.model_validate({"example": KNOWN | {"data": "AAAA"}})


@pytest.mark.parametrize(
    "model",
    [questions.KnownExampleIn, questions.ImageIn, questions.FilterIn, questions.QueryRequest, questions.ExampleListing],
)
def test_requests_are_frozen_and_refuse_what_they_do_not_know(model: type[questions._Request]) -> None:
    assert model.model_config["extra"] == "forbid"
    assert model.model_config["frozen"] is True
    assert model.model_json_schema()["additionalProperties"] is False


def test_each_example_of_a_request_gets_an_answer(served: TestClient) -> None:
    examples = QueryRequest.model_json_schema()["examples"]
    assert examples
    for example in examples:
        response = served.post("/v1/indexes/tiny/query", json=example)
        answer = QueryAnswer.model_validate_json(response.content)
        assert response.status_code == 200
        assert answer.query.label == example.get("label", answer.query.predicted)
        assert len(answer.proponents or ()) == len(answer.opponents or ()) == example.get("k", 10)


def test_the_examples_stand_in_the_description(app: FastAPI) -> None:
    described = app.openapi()["components"]["schemas"]["QueryRequest"]["examples"]
    assert described == QueryRequest.model_json_schema()["examples"]


def test_every_model_says_what_it_is() -> None:
    models = [m for m in vars(questions).values() if isinstance(m, type) and issubclass(m, questions._Request)]
    assert len(models) >= 7
    assert [m.__name__ for m in models if not m.__doc__ and not m.__name__.startswith("_")] == []
