"""Settings: read once, at the edge, from arguments and from environment variables that begin with PROPONENT_."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


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
