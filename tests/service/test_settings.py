"""Settings: defaults, the environment, and the ranges that are refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from indexer.errors import SettingsError
from service.settings import Settings, read_settings

GIVEN = {"indexes": Path("indexes"), "task": "digits.py:task"}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own environment says nothing."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"PROPONENT_{name.upper()}", raising=False)


def test_defaults_listen_on_loopback_with_limits() -> None:
    settings = Settings.model_validate(GIVEN)
    assert settings.model_dump() == GIVEN | {
        "host": "127.0.0.1",
        "port": 8000,
        "max_k": 1000,
        "max_body_bytes": 1_000_000,
        "page_size": 100,
    }


def test_what_is_not_given_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"INDEXES": "/data", "TASK": "a:b", "MAX_K": "7", "PAGE_SIZE": "9"}.items():
        monkeypatch.setenv(f"PROPONENT_{name}", value)
    settings = Settings()  # type: ignore[call-arg]  # the required ones stand in the environment
    assert (settings.indexes, settings.task, settings.max_k, settings.page_size) == (Path("/data"), "a:b", 7, 9)
    assert Settings(indexes=Path("mine"), task="c:d").indexes == Path("mine")


@pytest.mark.parametrize("missing", ["indexes", "task"])
def test_a_missing_setting_is_named(missing: str) -> None:
    with pytest.raises(ValidationError, match=rf"{missing}\n  Field required"):
        Settings.model_validate({name: value for name, value in GIVEN.items() if name != missing})


@pytest.mark.parametrize(
    ("name", "value"), [("port", -1), ("port", 65536), ("max_k", 0), ("max_body_bytes", 1023), ("page_size", 0)]
)
def test_a_value_out_of_range_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValidationError, match=rf"{name}\n  Input should be (greater|less) than"):
        Settings.model_validate(GIVEN | {name: value})


def test_settings_do_not_change() -> None:
    settings = Settings.model_validate(GIVEN)
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1


def test_a_setting_out_of_range_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROPONENT_MAX_K", "0")
    with pytest.raises(SettingsError, match=r"setting max_k \(PROPONENT_MAX_K\): Input should be greater .* found '0'"):
        read_settings(indexes=Path("indexes"), task="digits.py:task")


def test_settings_that_are_given_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROPONENT_PORT", "9999")
    assert read_settings(indexes=Path("indexes"), task="digits.py:task", port=8123).port == 8123
