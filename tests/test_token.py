"""Settings and tokens for Kafka, without a broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError
from pydantic import SecretStr, ValidationError
from secured import CLIENT_SECRET, TokenServer

from schemas.errors import UsageError
from streams.configuration import problems
from streams.settings import Settings
from topics.connection import KafkaSettings
from topics.token import ClientCredentials


@pytest.fixture
def server() -> Iterator[TokenServer]:
    made = TokenServer()
    yield made
    made.close()


def settings(url: str, secret: str = CLIENT_SECRET) -> KafkaSettings:
    return KafkaSettings(
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        oauth_token_url=url,
        oauth_client_id="me",
        oauth_client_secret=SecretStr(secret),
        timeout_s=5,
    )


async def test_a_token_is_kept_for_most_of_its_minute(server: TokenServer) -> None:
    now = 1000.0
    provider = ClientCredentials(settings(server.url), clock=lambda: now)
    first = await provider.token()
    now += 47
    assert await provider.token() == first
    assert server.asked == 1
    now += 2
    await provider.token()
    assert server.asked == 2


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "nobody there"])
async def test_no_token_is_what_aiokafka_waits_out(server: TokenServer, refused: bool) -> None:
    url = server.url if refused else "http://127.0.0.1:9/token"
    provider = ClientCredentials(settings(url, "a-wrong-secret"))
    with pytest.raises(KafkaConnectionError, match="no token from") as raised:
        await provider.token()
    assert "a-wrong-secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"security_protocol": "SASL_SSL"}, "kafka.sasl_username"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "kafka.oauth_token_url"),
        ({"oauth_token_url": "http://login.example/token"}, "in the clear"),
        ({"oauth_token_url": "https://me:secret@login.example/token"}, "holds no credentials"),
        ({"ssl_keyfile": "key.pem"}, "kafka.ssl_certfile"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(given: dict[str, str], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        KafkaSettings.model_validate(given)


def test_a_rotated_password_is_that_of_the_next_client(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("the first\n")
    kafka = KafkaSettings(security_protocol="SASL_SSL", sasl_username="me", sasl_password_file=file)
    assert kafka.confluent()["sasl.password"] == "the first"
    file.write_text("the second\n")
    assert kafka.confluent()["sasl.password"] == "the second"
    file.unlink()
    with pytest.raises(UsageError, match="sasl_password_file"):
        kafka.confluent()


def test_the_check_of_the_settings_tries_what_tokens_need(tmp_path: Path) -> None:
    kafka = settings("https://login.example/token")
    assert problems(Settings(kafka=kafka)) == []
    (tmp_path / "ca.pem").write_text("no certificate")
    (found,) = problems(Settings(kafka=kafka.model_copy(update={"oauth_cafile": tmp_path / "ca.pem"})))
    assert "kafka.oauth_cafile" in str(found)
    (found,) = problems(Settings(kafka=kafka.model_copy(update={"oauth_client_secret": SecretStr("")})))
    assert "kafka.oauth_client_secret" in str(found)


def test_both_libraries_show_the_certificate_that_holds_its_key() -> None:
    config = KafkaSettings(security_protocol="SSL", ssl_certfile=Path("both.pem")).confluent()
    assert config["ssl.certificate.location"] == config["ssl.key.location"] == "both.pem"
