"""How Kafka is reached: one settings section for both client libraries."""

import ssl
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class KafkaSettings(BaseModel):
    """The ``kafka`` section: where the brokers are and how to prove who we are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bootstrap_servers: str = Field("localhost:9092", description="brokers, host:port, comma-separated")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: Path | None = Field(
        None, description="PEM file with the authority of the brokers' certificates"
    )
    ssl_certfile: Path | None = Field(None, description="PEM file with the client's certificate")
    ssl_keyfile: Path | None = Field(None, description="PEM file with the client's key")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    replication_factor: int = Field(
        1,
        ge=1,
        description="of topics that `topics apply` creates; fewer are warned of at a start; 3 in production",
    )
    min_insync_replicas: int = Field(
        1,
        ge=1,
        description="replicas that have to hold a record before it counts, at the least; 2 in production",
    )
    partitions: int = Field(
        8,
        ge=1,
        description="of avion.raw and avstar.batches; more only with `topics apply --allow partitions`",
    )
    validated_partitions: int = Field(8, ge=1, description="of each avion.validated topic; more likewise")
    timeout_s: float = Field(15.0, gt=0, description="how long a command waits for the broker")

    @model_validator(mode="after")
    def _writable(self) -> Self:
        if self.min_insync_replicas > self.replication_factor:
            raise ValueError(
                "kafka.min_insync_replicas is above kafka.replication_factor: nothing could be written"
            )
        return self

    def confluent(self, **extra: Any) -> dict[str, Any]:
        """Configuration for confluent-kafka, ``extra`` in librdkafka's names (underscores for dots)."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "log_level": 2,
        }
        for name, path in (
            ("ssl.ca.location", self.ssl_cafile),
            ("ssl.certificate.location", self.ssl_certfile),
            ("ssl.key.location", self.ssl_keyfile),
        ):
            if path is not None:
                config[name] = str(path)
        if self.security_protocol.startswith("SASL"):
            config["sasl.mechanism"] = self.sasl_mechanism
            config["sasl.username"] = self.sasl_username
            config["sasl.password"] = self.sasl_password.get_secret_value()
        return config | {name.replace("_", "."): value for name, value in extra.items()}

    def reading(self, **extra: Any) -> dict[str, Any]:
        """As :meth:`confluent`, of a consumer that reads what is committed, assigned and without a group."""
        return self.confluent(
            group_id="spotstream-reader",  # librdkafka insists on one; it is never joined
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            enable_partition_eof=True,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_wait_max_ms=50,
            **extra,
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context for aiokafka and Faust; None without TLS."""
        if not self.security_protocol.endswith("SSL"):
            return None
        context = ssl.create_default_context(cafile=str(self.ssl_cafile) if self.ssl_cafile else None)
        if self.ssl_certfile:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
        return context
