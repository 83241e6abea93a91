"""The schema registry: any that speaks Confluent's API."""

import json
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from schemas.errors import Problem, Unreachable, UsageError
from schemas.network import anonymous
from schemas.redact import hide
from schemas.secret import Secret
from schemas.setting import File, Seconds


class RegistrySettings(BaseModel):
    """The ``registry`` section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field("http://localhost:8081", description="base address of a Confluent-compatible registry")
    username: str = Field("", description="for basic authentication")
    password: SecretStr = Field(SecretStr(""), description="for basic authentication; better given in a file")
    password_file: File | None = Field(None, description="file with the password, read at a command's start")
    cafile: File | None = Field(None, description="PEM file with the authority of the registry's certificate")
    timeout_s: Seconds = Field(10.0, gt=0, description="how long a request may take")

    _anonymous = field_validator("url")(anonymous)


_T = TypeVar("_T")

#: What Confluent's API says of a schema's id and of a subject that it does not know.
_NO_SCHEMA, _NO_SUBJECT = 40403, 40401


class UnknownSchema(Problem):
    """The registry has no schema of that id."""


def _send_directly(client: Any) -> None:
    """Have no proxy of the environment's see the password; the client has no setting for that."""
    rest = client._rest_client
    rest.session.close()
    rest.session = type(rest.session)(
        verify=rest.verify, auth=rest.auth, timeout=rest.timeout, trust_env=False
    )


class Registry:
    """A client of the registry. Every method may wait up to the settings' ``timeout_s``.

    Raises :class:`Unreachable` when no registry answers, and :class:`Problem` when it refuses.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        # The client takes a third of a second to import, and most commands need no registry.
        from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: PLC0415

        self._where = settings.url
        self._secrets: tuple[str, ...] = ()
        config: dict[str, Any] = {
            "url": settings.url,
            "timeout": settings.timeout_s,
            "max.retries": 1,
            "retries.wait.ms": 200,
        }
        if settings.username:
            password = Secret(settings.password, settings.password_file, "registry.password").value
            user_info = f"{settings.username}:{password}"
            config["basic.auth.user.info"] = user_info
            basic = b64encode(user_info.encode()).decode()
            self._secrets = (password, basic)
        if settings.cafile:
            config["ssl.ca.location"] = str(settings.cafile)
        try:
            self._client = SchemaRegistryClient(config)
        except (ValueError, OSError) as error:
            raise UsageError(str(error), where="setting registry") from None
        _send_directly(self._client)

    def register(self, topic: str, schema: dict[str, Any]) -> int:
        """Register the schema of a topic's values and give its id; a known schema keeps its id.

        The subject's compatibility is ``FULL_TRANSITIVE`` from then on: its schemas stay compatible in both
        directions with all before. Raises :class:`Problem` when it has one that this one does not go with.
        """
        from confluent_kafka.schema_registry import Schema  # noqa: PLC0415

        subject = f"{topic}-value"
        self._check(subject, schema)
        written = Schema(json.dumps(schema), "AVRO")
        found = self._ask(subject, lambda: self._client.register_schema(subject, written))
        self._ask(subject, lambda: self._keep_compatible(subject))
        return int(found)

    def _keep_compatible(self, subject: str) -> None:
        from confluent_kafka.schema_registry import SchemaRegistryError  # noqa: PLC0415

        try:
            self._client.set_compatibility(subject, "FULL_TRANSITIVE")
        except SchemaRegistryError as error:
            if error.http_status_code != HTTPStatus.CONFLICT:
                raise
            self._client.set_compatibility(subject, "FULL_TRANSITIVE")  # two workers started at once

    def _check(self, subject: str, schema: dict[str, Any]) -> None:
        """Compare ``schema`` with all of the subject; the registry would do so only if it did not know it."""
        from schemas.compatibility import conflicts  # noqa: PLC0415 - it is needed here and not to read

        for version in self._versions(subject):
            there = self._ask(subject, partial(self._client.get_version, subject, version))
            try:
                found = conflicts(json.loads(there.schema.schema_str), schema)
            except Exception as error:  # noqa: BLE001 - a stranger's schema may be anything
                found = [f"it is no Avro record: {error}"]
            if found:
                raise Problem(
                    f"version {version} of {subject} and this version's schema are incompatible: {found[0]}",
                    where=self._where,
                    remedy="run the version of spotstream that it is of, or delete it from the registry",
                )

    def _versions(self, subject: str) -> list[int]:
        from confluent_kafka.schema_registry import SchemaRegistryError  # noqa: PLC0415

        def ask() -> list[int]:
            try:
                return list(self._client.get_versions(subject))
            except SchemaRegistryError as error:
                if error.error_code == _NO_SUBJECT:
                    return []
                raise

        return self._ask(subject, ask)

    def has(self, topic: str, schema: dict[str, Any]) -> bool:
        """Whether the schema of a topic's values is registered; changes nothing.

        Raises :class:`Problem` when the subject has one that this one does not go with.
        """
        from confluent_kafka.schema_registry import Schema, SchemaRegistryError  # noqa: PLC0415

        subject = f"{topic}-value"
        self._check(subject, schema)

        def ask() -> bool:
            try:
                self._client.lookup_schema(subject, Schema(json.dumps(schema), "AVRO"))
            except SchemaRegistryError as error:
                if error.http_status_code == HTTPStatus.NOT_FOUND:
                    return False
                raise
            return True

        return self._ask(subject, ask)

    def schema(self, schema_id: int) -> dict[str, Any]:
        """The schema that an id stands for.

        Raises :class:`UnknownSchema` when there is none, and ``ValueError`` when it is not written in JSON.
        """
        found = self._ask(f"schema {schema_id}", lambda: self._client.get_schema(schema_id))
        parsed: dict[str, Any] = json.loads(found.schema_str)
        return parsed

    def _ask(self, what: str, ask: Callable[[], _T]) -> _T:
        from confluent_kafka.schema_registry import SchemaRegistryError  # noqa: PLC0415

        try:
            return ask()
        except SchemaRegistryError as error:
            if error.http_status_code >= 500:
                raise self._unreachable(f"HTTP status {error.http_status_code}") from None
            why = hide(str(error.error_message), self._secrets)
            if error.error_code == _NO_SCHEMA:
                raise UnknownSchema(f"{what} was refused: {why}", where=self._where) from None
            raise Problem(f"{what} was refused: {why}", where=self._where) from None
        except Exception as error:  # noqa: BLE001 - of whichever HTTP library the client was built with
            raise self._unreachable(hide(str(error), self._secrets) or type(error).__name__) from None

    def _unreachable(self, why: str) -> Unreachable:
        return Unreachable(
            f"no schema registry answers: {why}", where=self._where, remedy="check registry.url"
        )
