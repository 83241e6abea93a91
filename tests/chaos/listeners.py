"""Listeners that demand TLS and a proof of who comes: SCRAM, or an OAuth2 token that lives for a minute."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import trustme
from secured import (
    CLIENT_SECRET,
    REAUTHENTICATED_MS,
    SCRAM_PASSWORD,
    TokenServer,
    add_users,
    as_java_reads_it,
)

_USER = "chaos"
_MODULES = "org.apache.kafka.common.security"
#: Of a listener called LINKED.
_SETTINGS = f"""
connections.max.reauth.ms={REAUTHENTICATED_MS}
ssl.keystore.type=PEM
ssl.keystore.location={{broker}}
sasl.enabled.mechanisms=SCRAM-SHA-512,OAUTHBEARER
sasl.oauthbearer.jwks.endpoint.url=file://{{jwks}}
sasl.oauthbearer.expected.issuer=tests
sasl.oauthbearer.expected.audience=kafka
listener.name.linked.scram-sha-512.sasl.jaas.config={_MODULES}.scram.ScramLoginModule required;
listener.name.linked.oauthbearer.sasl.jaas.config={_MODULES}.oauthbearer.OAuthBearerLoginModule required;
listener.name.linked.oauthbearer.sasl.server.callback.handler.class=\
{_MODULES}.oauthbearer.OAuthBearerValidatorCallbackHandler
"""


class Guard:
    """An authority, a token server, and what brokers and clients need of them."""

    def __init__(self, folder: Path, link: int) -> None:
        """``link``: the port at which clients find the token server, which is at :attr:`port`."""
        authority, self._tokens = trustme.CA(), TokenServer()
        direct = urlsplit(self._tokens.url)
        assert direct.port
        self.port, self._url = direct.port, direct._replace(netloc=f"127.0.0.1:{link}").geturl()
        self._ca, broker, jwks = folder / "ca.pem", folder / "broker.pem", folder / "jwks.json"
        authority.cert_pem.write_to_path(self._ca)
        broker.write_bytes(as_java_reads_it(authority.issue_cert("127.0.0.1")))
        jwks.write_text(str(self._tokens.jwks).replace("'", '"'))
        self.settings = _SETTINGS.format(broker=broker, jwks=jwks)
        # The JVM has to be told which places keys of tokens may come from.
        os.environ["JAVA_TOOL_OPTIONS"] = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{jwks}"

    def introduce(self, bootstrap: str) -> None:
        """Make the brokers, asked where they demand nothing, know the user."""
        add_users(bootstrap, _USER)

    @property
    def environment(self) -> dict[str, str]:
        """The settings of tailers and commands."""
        return {
            "SPOTSTREAM_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "SPOTSTREAM_KAFKA__SSL_CAFILE": str(self._ca),
            "SPOTSTREAM_KAFKA__SASL_USERNAME": _USER,
            "SPOTSTREAM_KAFKA__SASL_PASSWORD": SCRAM_PASSWORD,
        }

    @property
    def of_workers(self) -> dict[str, object]:
        """And of workers beside."""
        return {
            "KAFKA__SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA__OAUTH_TOKEN_URL": self._url,
            "KAFKA__OAUTH_CLIENT_ID": _USER,
            "KAFKA__OAUTH_CLIENT_SECRET": CLIENT_SECRET,
        }

    def close(self) -> None:
        """End the token server."""
        self._tokens.close()
