"""Probes: alive and ready, without a question to the engine."""

import pytest
from starlette.testclient import TestClient

from service.schemas import Health
from tests.service.fake import FakeEngine


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_answer_without_the_engine(client: TestClient, engine: FakeEngine, path: str) -> None:
    engine.failure = RuntimeError("every question fails")
    response = client.get(path)
    assert response.status_code == 200
    assert Health.model_validate_json(response.content) == Health(status="ok")
    assert engine.asked == []
