"""The schema registry: any that speaks Confluent's API."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class RegistrySettings(BaseModel):
    """The ``registry`` section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field("http://localhost:8081", description="base address of a Confluent-compatible registry")
    username: str = Field("", description="for basic authentication")
    password: SecretStr = SecretStr("")
    cafile: Path | None = Field(None, description="PEM file with the authority of the registry's certificate")
    timeout_s: float = Field(10.0, gt=0, description="how long a request may take")
