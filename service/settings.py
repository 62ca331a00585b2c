"""Settings: read once, at the edge, from arguments and from environment variables that begin with PROPONENT_."""

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from indexer.errors import SettingsError


class Settings(BaseSettings):
    """What the operator decides. Limits appear in the texts of the errors that they cause."""

    model_config = SettingsConfigDict(env_prefix="PROPONENT_", frozen=True)

    indexes: Path = Field(description="a folder of indexes, or one index")
    task: str = Field(description="the task that the indexes were built with: 'path.py:name' or 'module:name'")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_k: int = Field(default=1000, ge=1, description="most proponents or opponents of one answer")
    max_body_bytes: int = Field(default=1_000_000, ge=1024)
    page_size: int = Field(default=100, ge=1, description="examples a page, at most")


def read_settings(**given: Any) -> Settings:
    """Read the settings: what is given here, and the rest from the environment.

    Raises:
        SettingsError: one is out of range; it is named with its bounds.
    """
    try:
        return Settings(**given)
    except ValidationError as exc:
        first = exc.errors()[0]
        name = str(first["loc"][0])
        raise SettingsError(
            f"setting {name} (PROPONENT_{name.upper()}): {first['msg']}, found {first['input']!r}"
        ) from exc
