"""How Kafka is reached: one settings section for both client libraries."""

import re
import ssl
from base64 import b64encode
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from schemas.errors import UsageError
from schemas.network import anonymous, in_clear, tls
from schemas.secret import Secret
from schemas.setting import File, Seconds

#: librdkafka insists on a group for each consumer. Nobody joins this one, but its coordinator is asked for.
READERS = "spotstream-reader"

#: A broker; without a port both client libraries take 9092.
_SERVER = re.compile(r"([^\s:/@\[\],]+|\[[0-9A-Fa-f:.]+(%[\w.-]+)?\])(:(?P<port>[0-9]{1,9}))?")


class KafkaSettings(BaseModel):
    """The ``kafka`` section: where the brokers are and how to prove who we are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bootstrap_servers: str = Field(
        "localhost:9092", description="brokers, host:port, comma-separated; of IPv6 [address]:port"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="of the brokers' listener: SASL says who we are, SSL encrypts"
    )
    ssl_cafile: File | None = Field(
        None, description="PEM file with the only authority of brokers that is trusted; none: the system's"
    )
    ssl_certfile: File | None = Field(None, description="PEM file with the client's certificate")
    ssl_keyfile: File | None = Field(
        None, description="PEM file with the client's key, unencrypted; none: it is in ssl_certfile, too"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "SCRAM-SHA-512", description="how who we are is proven, where the protocol has SASL in it"
    )
    sasl_username: str = Field("", description="for PLAIN and SCRAM")
    sasl_password: SecretStr = Field(SecretStr(""), description="for PLAIN and SCRAM; better given in a file")
    sasl_password_file: File | None = Field(
        None, description="file with the password, read again for each new client"
    )
    oauth_token_url: str = Field("", description="of the token endpoint, for OAUTHBEARER")
    oauth_client_id: str = Field("", description="the client's id at the token endpoint")
    oauth_client_secret: SecretStr = Field(
        SecretStr(""), description="the client's secret; better given in a file"
    )
    oauth_client_secret_file: File | None = Field(
        None, description="file with the client's secret, read again for each new client"
    )
    oauth_scope: str = Field("", description="scopes to ask for, separated by spaces; empty: the usual ones")
    oauth_cafile: File | None = Field(
        None, description="PEM file with the authority of the token endpoint; none: the system's"
    )
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
        le=10_000,
        description="of avion.raw and avstar.batches; more only with `topics apply --allow partitions`",
    )
    validated_partitions: int = Field(
        8, ge=1, le=10_000, description="of each avion.validated topic; more likewise"
    )
    timeout_s: Seconds = Field(15.0, gt=0, description="how long a command waits for the broker")

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, given: str) -> str:
        if "@" in given:  # which may be a secret, so nothing of it is shown
            raise ValueError(
                "an address holds no credentials, for which there are sasl_username and sasl_password"
            )
        # What is none of ours would be taken for something else: librdkafka counts ports modulo 65,536.
        for server in given.split(","):
            found = _SERVER.fullmatch(server.strip(" "))
            if not found or not server.isprintable():
                raise ValueError(f"{server!r} is not as host:port, or [address]:port of IPv6")
            if found["port"] and not 0 < int(found["port"]) < 65_536:
                raise ValueError(f"{server!r} has no port from 1 to 65535")
        return given

    @field_validator("oauth_token_url")
    @classmethod
    def _readable_by_nobody(cls, url: str) -> str:
        if url and (urlsplit(url).scheme not in {"http", "https"} or in_clear(url)):
            raise ValueError("the secret would cross the network in the clear, use https")
        return anonymous(url)

    @model_validator(mode="after")
    def _provable(self) -> Self:
        if self.security_protocol.startswith("SASL"):
            oauth = self.sasl_mechanism == "OAUTHBEARER"
            for name in ("oauth_token_url", "oauth_client_id") if oauth else ("sasl_username",):
                if not getattr(self, name):
                    raise ValueError(
                        f"kafka.{name} is not set, and {self.security_protocol} with {self.sasl_mechanism} "
                        "needs it"
                    )
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ValueError("a key is of no use without its certificate, kafka.ssl_certfile")
        return self

    @model_validator(mode="after")
    def _writable(self) -> Self:
        if self.min_insync_replicas > self.replication_factor:
            raise ValueError(
                "kafka.min_insync_replicas is above kafka.replication_factor: nothing could be written"
            )
        return self

    def confluent(self, **extra: Any) -> dict[str, Any]:
        """Configuration for confluent-kafka, ``extra`` in librdkafka's names (underscores for dots).

        Raises ``UsageError`` when a file with a secret cannot be used.
        """
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "log_level": 2,
            # A topic that a broker makes, being asked about it, has its defaults: it forgets in a week.
            "allow.auto.create.topics": False,
            # Half of it is how long librdkafka rests between two first connections. It doubles as they fail.
            "reconnect.backoff.ms": 20,
        }
        for name, path in (
            ("ssl.ca.location", self.ssl_cafile),
            ("ssl.certificate.location", self.ssl_certfile),
            # Python looks for the key beside the certificate, librdkafka would show none.
            ("ssl.key.location", self.ssl_keyfile or self.ssl_certfile),
        ):
            if path is not None:
                config[name] = str(path)
        if self.security_protocol.startswith("SASL"):
            config |= self._sasl()
        return config | {name.replace("_", "."): value for name, value in extra.items()}

    def _sasl(self) -> dict[str, Any]:
        config: dict[str, Any] = {"sasl.mechanism": self.sasl_mechanism}
        if self.sasl_mechanism != "OAUTHBEARER":
            return config | {"sasl.username": self.sasl_username, "sasl.password": self.password()}
        config |= {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": self.oauth_token_url,
            "sasl.oauthbearer.client.id": self.oauth_client_id,
            "sasl.oauthbearer.client.secret": self.client_secret(),
        }
        if self.oauth_scope:
            config["sasl.oauthbearer.scope"] = self.oauth_scope
        if self.oauth_cafile:
            config["https.ca.location"] = str(self.oauth_cafile)
        return config

    def reading(self, **extra: Any) -> dict[str, Any]:
        """As :meth:`confluent`, of a consumer that reads what is committed, assigned and without a group."""
        return self.confluent(
            group_id=READERS,
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            enable_partition_eof=True,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_wait_max_ms=50,
            **extra,
        )

    @property
    def principal(self) -> str:
        """Whom the broker takes us for, as far as the settings tell."""
        if not self.security_protocol.startswith("SASL"):
            return "this client"
        return self.oauth_client_id if self.sasl_mechanism == "OAUTHBEARER" else self.sasl_username

    def secrets(self) -> list[str]:
        """What may be shown to nobody. Raises ``UsageError``."""
        if not self.security_protocol.startswith("SASL"):
            return []
        if self.sasl_mechanism != "OAUTHBEARER":
            return [self.password()]
        return [self.client_secret(), self.basic()]

    def basic(self) -> str:
        """Id and secret of the OAuth client, as HTTP's basic authentication has them; or ``UsageError``."""
        return b64encode(f"{self.oauth_client_id}:{self.client_secret()}".encode()).decode()

    def password(self) -> str:
        """The SASL password as it is now. Raises ``UsageError``."""
        return Secret(self.sasl_password, self.sasl_password_file, "kafka.sasl_password").value

    def client_secret(self) -> str:
        """The OAuth client's secret as it is now. Raises ``UsageError``."""
        secret = Secret(self.oauth_client_secret, self.oauth_client_secret_file, "kafka.oauth_client_secret")
        if not secret.value:
            raise UsageError("a client id needs a secret", where="setting kafka.oauth_client_secret")
        return secret.value

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context for aiokafka and Faust; None without TLS. Raises ``UsageError``."""
        if not self.security_protocol.endswith("SSL"):
            return None
        return tls("kafka.ssl_", self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile)

    def oauth_ssl_context(self) -> ssl.SSLContext:
        """The TLS context for the token endpoint. Raises ``UsageError``."""
        return tls("kafka.oauth_", self.oauth_cafile)
