"""Settings: ``spotstream.toml``, overridden by ``SPOTSTREAM_SECTION__NAME``, overridden by flags."""

import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from schemas.errors import UsageError
from schemas.network import anonymous, in_clear
from schemas.registry import RegistrySettings
from schemas.setting import File, Name, Seconds, complaint
from streams.dispatch.policy import Action, Status
from topics.connection import KafkaSettings

PREFIX = "SPOTSTREAM_"
FILE = "spotstream.toml"

#: librdkafka takes no less, and a broker no more, unless its transaction.max.timeout.ms says so.
_TransactionSeconds = Annotated[float, Field(ge=1, le=900)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AvstarSettings(_Section):
    """The ``avstar`` section: the API that takes the batches."""

    base_url: str = Field("https://api.traffic-system.example", description="base address of the API")
    api_key: SecretStr = Field(SecretStr(""), description="scoped API key; better given in a file")
    api_key_file: File | None = Field(None, description="file with the API key, read again when it changes")
    oauth_client_id: str = Field(
        "", pattern=r"^[\x20-\x7e]*$", description="with one, OAuth2 tokens are used, not the API key"
    )
    oauth_client_secret: SecretStr = Field(
        SecretStr(""), description="the client's secret; better given in a file"
    )
    oauth_client_secret_file: File | None = Field(
        None, description="file with the client's secret, read again when it changes"
    )
    oauth_token_url: str = Field("", description="of the token endpoint; empty: base_url/oauth/token")
    oauth_scope: str = Field("", description="scopes to ask for, separated by spaces; empty: the usual ones")
    oauth_client_auth: Literal["basic", "post"] = Field(
        "basic", description="id and secret in the Authorization header or in the form"
    )
    oauth_timeout_s: Seconds = Field(
        10.0, gt=0, description="for a token request; half of request_timeout_s at the most"
    )
    request_timeout_s: Seconds = Field(30.0, gt=0, description="for a request in all")
    connect_timeout_s: Seconds = Field(5.0, gt=0, description="to connect, TLS included")
    read_timeout_s: Seconds = Field(30.0, gt=0, description="longest silence while an answer is awaited")
    keepalive_s: Seconds = Field(60.0, gt=0, description="how long an idle connection is kept")
    dns_cache_s: Seconds = Field(30.0, ge=1, description="how long an address that was looked up is used")
    plain_http: bool = Field(
        False,
        description="allow http addresses beyond this machine, the registry's with a password too; "
        "credentials cross the network readable",
    )
    ssl_cafile: File | None = Field(
        None, description="PEM file with the only authority that is trusted; none: the system's"
    )
    ssl_certfile: File | None = Field(None, description="PEM file with the client's certificate")
    ssl_keyfile: File | None = Field(None, description="PEM file with the client's key, unencrypted")
    proxy: str = Field("", description="HTTP proxy for the API and the token endpoint, http://host:port")
    proxy_username: str = Field("", description="for the proxy's basic authentication")
    proxy_password: SecretStr = Field(SecretStr(""), description="the proxy's password; better in a file")
    proxy_password_file: File | None = Field(
        None, description="file with the proxy's password, read again when it changes"
    )
    ledger_url: str = Field("", description="the sandbox's ledger, for the audit; empty at the real API")

    _anonymous = field_validator("ledger_url")(anonymous)


class TailSettings(_Section):
    """The ``tail`` section: following files."""

    name: str = Field(
        "tail", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="a tailer's name; one runs under it"
    )
    profile: Name = Field("avion", description="mapping profile, a built-in's name or a TOML file")
    partitioning: Literal["file", "block"] = Field(
        "file", description="block spreads one file over all partitions"
    )
    block_bytes: int = Field(1_048_576, ge=4096, le=16_777_216, description="read and published at a time")
    max_record_bytes: int = Field(
        1_048_576, ge=1024, le=4_194_304, description="longest record that is taken"
    )
    transaction_timeout_s: _TransactionSeconds = Field(
        15.0, description="after which the broker aborts a silent tailer's, 1 to 900"
    )
    watch: Literal["auto", "poll"] = Field(
        "auto", description="auto: the kernel's notices where there are any; poll: look again and again"
    )
    rotated_after_s: Seconds = Field(
        5.0, gt=0, description="silence after which a file that was rotated away is at its end"
    )
    complete_after_s: Seconds = Field(
        0.0, ge=0, description="silence after which any file is at its end; 0: never, while followed"
    )
    copy_wait_s: Seconds = Field(
        10.0,
        ge=0,
        description="silence after which a file equal to another's beginning is no copy in the making",
    )
    metrics_port: int = Field(
        0, ge=0, le=65_535, description="where metrics are served while files are followed; 0: nowhere"
    )
    metrics_host: str = Field("127.0.0.1", description="address that metrics bind to")


class BatchSettings(_Section):
    """The ``batch`` section: windows of raw records, each of which becomes one batch."""

    records: int = Field(5000, ge=2000, le=10_000, description="raw records in a window at the most")
    seconds: float = Field(1.0, gt=0, le=60, description="how long a window stays open at the most")
    early_seconds: float = Field(
        0.0,
        ge=0,
        le=60,
        description="how long while no batch of its partition waits for Avstar: quicker, in more requests; "
        "0: as long as else",
    )
    upload: Literal["auto", "json", "multipart"] = Field(
        "auto", description="how a batch travels; auto: multipart above multipart_above_bytes, else json"
    )
    multipart_above_bytes: int = Field(
        4_194_304, ge=0, description="size of the records, uncompressed, above which auto takes multipart"
    )


class DispatchSettings(_Section):
    """The ``dispatch`` section: sending batches to Avstar."""

    requests_at_once: int = Field(
        15,
        ge=1,
        le=256,
        description="requests in flight at the most, over all workers; fewer while Avstar is slow",
    )
    requests_per_minute: int = Field(
        0, ge=0, description="requests a minute at the most, over all workers; 0: what Avstar's answers say"
    )
    per_partition: int = Field(
        15, ge=1, le=256, description="of these from one partition; 1 keeps strict order"
    )
    backoff_base_s: Seconds = Field(
        0.2, gt=0, description="full jitter: random(0, min(cap, base * 2^attempt))"
    )
    backoff_cap_s: Seconds = Field(20.0, gt=0, description="longest wait between two attempts")
    give_up_after_attempts: int = Field(
        0, ge=0, description="of a batch that fails while others are taken; 0: never"
    )
    policy: dict[Status, Action] = Field(
        {},
        description="what a status (404) or a class (5xx) means, where it is not as in "
        "streams/dispatch/policy.py: retry, again, pause, unauthorized or refuse",
    )


class BreakerSettings(_Section):
    """The ``breaker`` section: when dispatch stops sending for a while, because Avstar is ill."""

    error_rate: float = Field(0.05, ge=0, lt=1, description="share of failed requests above which it opens")
    window_s: Seconds = Field(60.0, gt=0, description="over how long they are counted")
    minimum_calls: int = Field(
        50, ge=1, description="requests in that time without which it does not open: a few say nothing"
    )
    open_s: Seconds = Field(5.0, gt=0, description="until a single batch tries whether Avstar is well again")


class DlqSettings(_Section):
    """The ``dlq`` section: the dead letters, and the guard that keeps a bad deployment from filling them."""

    max_redrives: int = Field(5, ge=1, description="of a letter; one that failed so often is left alone")
    flood_share: float = Field(
        0.5, gt=0, le=1, description="share of rejected records above which validation pauses; 1: never"
    )
    flood_records: int = Field(
        10_000, ge=1, description="of a partition, the last ones, over which that share is taken"
    )
    flood_refused: int = Field(
        100, ge=0, description="records that Avstar refuses in a row before dispatch pauses; 0: never"
    )
    flood_pause_s: Seconds = Field(60.0, gt=0, description="until dispatch tries one request again")


class WorkerSettings(_Section):
    """The ``worker`` section: the processes that run the agents."""

    session_timeout_s: Seconds = Field(8.0, ge=6, description="after which a silent worker's partitions move")
    drain_s: Seconds = Field(3.0, gt=0, description="to finish what is in flight when partitions are revoked")
    transaction_timeout_s: _TransactionSeconds = Field(
        15.0, description="after which the broker aborts a transaction, 1 to 900"
    )
    web_host: str = Field("127.0.0.1", description="address that metrics and status bind to")
    web_port: int = Field(
        6066, ge=0, le=65_534, description="validate's; dispatch takes the next one; 0: any free"
    )
    web_token: SecretStr = Field(
        SecretStr(""),
        description="bearer token for pages and metrics, needed beyond this machine; better given in a file",
    )
    web_token_file: File | None = Field(None, description="file with the token, read again when it changes")
    peer_url: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        description="of the other role's pages, such as `http://host:6067`; empty: the port beside ours",
    )

    _anonymous = field_validator("peer_url")(anonymous)


class LogSettings(_Section):
    """The ``log`` section."""

    format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else JSON")
    level: Literal["debug", "info", "warning", "error"] = "info"


class TracesSettings(_Section):
    """The ``traces`` section: where OpenTelemetry spans are sent."""

    endpoint: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        description="OTLP over HTTP, such as `http://localhost:4318`; empty: nowhere",
    )
    timeout_s: float = Field(5.0, gt=0, le=60, description="for an export")

    _anonymous = field_validator("endpoint")(anonymous)


class Settings(BaseSettings):
    """All settings. Build it with :func:`load`, which turns pydantic's errors into ours."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kafka: KafkaSettings = KafkaSettings()
    registry: RegistrySettings = RegistrySettings()
    avstar: AvstarSettings = AvstarSettings()
    tail: TailSettings = TailSettings()
    batch: BatchSettings = BatchSettings()
    dispatch: DispatchSettings = DispatchSettings()
    breaker: BreakerSettings = BreakerSettings()
    dlq: DlqSettings = DlqSettings()
    worker: WorkerSettings = WorkerSettings()
    log: LogSettings = LogSettings()
    traces: TracesSettings = TracesSettings()

    @model_validator(mode="after")
    def _readable_by_nobody(self) -> Self:
        if self.registry.username and in_clear(self.registry.url) and not self.avstar.plain_http:
            raise UsageError(
                "the password would cross the network in the clear",
                where="setting registry.url",
                remedy="use https, or set avstar.plain_http where the network is trusted",
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, InitSettingsSource(settings_cls, in_file())


def in_file() -> dict[str, Any]:
    """Section → name → value, as the settings' file has them; empty where there is none.

    Raises ``TOMLDecodeError``, ``UnicodeDecodeError``, ``OSError``.
    """
    # -sig: some editors begin a file with a byte order mark.
    return tomllib.loads(Path(FILE).read_text("utf-8-sig")) if Path(FILE).is_file() else {}


def load(overrides: dict[str, dict[str, Any]] | None = None) -> Settings:
    """Read all settings; ``overrides`` (section → name → value) come from flags and win.

    Raises :class:`UsageError` that names the wrong or unknown setting.
    """
    _check_environment()
    try:
        return Settings(**cast("dict[str, Any]", overrides or {}))
    except ValidationError as error:
        name, what = complaint(error, "setting")
        raise UsageError(
            what, where=f"setting {name}", remedy="see the settings in docs/settings.md"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        what, remedy = _why_unread(error)
        raise UsageError(what, where=str(Path(FILE).resolve()), remedy=remedy) from None


def _why_unread(error: Exception) -> tuple[str, str]:
    """What is wrong with the file, and what to do."""
    match error:
        case UnicodeDecodeError():
            byte = error.object[error.start]
            return f"not UTF-8: the byte {byte:#04x} at {error.start}", "save it in UTF-8"
        case OSError():
            return f"cannot be read: {error.strerror}", "let this user read it"
    return f"not valid TOML: {error}", "see docs/settings.md"


def _check_environment() -> None:
    """Refuse what pydantic passes over or does not name: variables of no setting, tables that are no JSON."""
    for variable, value in os.environ.items():
        if not variable.upper().startswith(PREFIX):
            continue
        section, _, name = variable[len(PREFIX) :].lower().partition("__")
        field = Settings.model_fields.get(section)
        fields = getattr(field.annotation, "model_fields", {}) if field else {}
        if name not in fields:
            raise UsageError("no such setting", where=variable, remedy="names are SPOTSTREAM_SECTION__NAME")
        if get_origin(fields[name].annotation) is dict:
            try:
                json.loads(value)
            except ValueError as error:
                remedy = """write a table as {"404": "retry"}"""
                raise UsageError(f"not valid JSON: {error}", where=variable, remedy=remedy) from None
