"""A broker that demands credentials and permissions, and what is needed to have them: users, ACLs, tokens.

Its plain listener is for the tests themselves, which may do everything there; the others are for the tested.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from time import time
from typing import NamedTuple

import trustme
from aiohttp import BasicAuth, web
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from joserfc import jwt
from joserfc.jwk import RSAKey
from served import Served

from streams.lab.kafka import Broker
from streams.lab.service import free_port

#: How long a broker takes a connection for proven: then it wants a new proof, or closes it.
REAUTHENTICATED_MS = 6000
PLAIN_PASSWORD, SCRAM_PASSWORD, CLIENT_SECRET = (
    "of-the-plain-user",
    "of-the-scram-user",
    "of-the-oauth-client",
)


class TokenServer(Served):
    """Grants tokens for a minute to whoever knows :data:`CLIENT_SECRET`, signed with a key of ``jwks``."""

    def __init__(self) -> None:
        self.asked = 0
        self._key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256", "kid": "1"})
        self.jwks = {"keys": [self._key.as_dict(private=False)]}
        app = web.Application()
        app.router.add_post("/token", self._token)
        super().__init__(app)
        self.url += "/token"

    async def _token(self, request: web.Request) -> web.Response:
        self.asked += 1
        who = BasicAuth.decode(request.headers["Authorization"])
        form = await request.post()
        if form["grant_type"] != "client_credentials" or who.password != CLIENT_SECRET:
            return web.json_response({"error": "invalid_client"}, status=401)
        now = int(time())
        claims = {
            "sub": who.login,
            "iss": "tests",
            "aud": "kafka",
            "iat": now,
            "exp": now + 60,
            "scope": form.get("scope", "all"),
        }
        token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self._key)
        return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": 60})


class Pems(NamedTuple):
    """PEM files: the authority of everybody's certificates, and a client's certificate with its key."""

    authority: Path
    client: Path

    @classmethod
    def written(cls, ca: trustme.CA, folder: Path, client: str) -> "Pems":
        found = cls(folder / "ca.pem", folder / f"{client}.pem")
        ca.cert_pem.write_to_path(found.authority)
        cert = ca.issue_cert("client.example", common_name=client)  # without a host's name Java takes none
        cert.private_key_and_cert_chain_pem.write_to_path(found.client)
        return found


class SecuredBroker(Broker):
    """Beside the plain one: ``sasl_ssl``, ``sasl_plaintext`` and ``ssl``, which asks for certificates.

    Nobody may do anything there but those whom :meth:`allow` allows. PLAIN knows one user, ``plain``.
    """

    def __init__(self, data_dir: Path, ca: trustme.CA, tokens: TokenServer) -> None:
        super().__init__(data_dir)
        self._ca, self._tokens = ca, tokens
        self.sasl_ssl, self.sasl_plaintext, self.ssl = (f"127.0.0.1:{free_port()}" for _ in range(3))

    def _write_settings(self) -> None:
        super()._write_settings()
        (self._dir / "jwks.json").write_text(str(self._tokens.jwks).replace("'", '"'))
        ca, broker = self._dir / "ca.pem", self._dir / "broker.pem"
        self._ca.cert_pem.write_to_path(ca)
        broker.write_bytes(as_java_reads_it(self._ca.issue_cert("127.0.0.1")))
        file = self._dir / "server.properties"
        text = file.read_text()
        others = f"SASL_SSL://{self.sasl_ssl},SASL_PLAINTEXT://{self.sasl_plaintext},SSL://{self.ssl}"
        text = re.sub("^((?:advertised.)?listeners=.*)$", rf"\1,{others}", text, flags=re.MULTILINE)
        file.write_text(text + _SECURED.format(ca=ca, broker=broker, jwks=self._dir / "jwks.json"))

    def launch(self) -> None:
        """The JVM has to be told which places keys of tokens may come from."""
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{self._dir / 'jwks.json'}"
        os.environ["JAVA_TOOL_OPTIONS"] = allowed
        try:
            super().launch()
        finally:
            del os.environ["JAVA_TOOL_OPTIONS"]

    def add_users(self, *names: str, password: str = SCRAM_PASSWORD) -> None:
        """For both SCRAMs; in the place of those who have these names."""
        add_users(self.bootstrap, *names, password=password)

    def allow(self, principal: str, acls: Iterable["Acl"]) -> None:
        """Let ``User:principal`` do this."""
        bindings = [
            AclBinding(
                acl.resource,
                acl.name,
                acl.pattern,
                f"User:{principal}",
                "*",
                acl.operation,
                AclPermissionType.ALLOW,
            )
            for acl in acls
        ]
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for outcome in admin.create_acls(bindings).values():
            outcome.result(15)


def add_users(bootstrap: str, *names: str, password: str = SCRAM_PASSWORD) -> None:
    """Give the brokers there users for both SCRAMs, in the place of those who have these names."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        way = ScramCredentialInfo(mechanism, 4096)
        changed = admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion(name, way, password.encode()) for name in names]
        )
        for outcome in changed.values():
            outcome.result(15)


def as_java_reads_it(cert: trustme.LeafCert) -> bytes:
    """PEM of key and chain: Java reads a key as PKCS#8 only."""
    key = load_pem_private_key(cert.private_key_pem.bytes(), password=None)
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pkcs8 + b"".join(pem.bytes() for pem in cert.cert_chain_pems)


class Acl(NamedTuple):
    """One operation on one resource, or on all whose name begins so."""

    resource: ResourceType
    name: str
    pattern: ResourcePatternType
    operation: AclOperation


_MODULES, _VALIDATOR = "org.apache.kafka.common.security", "OAuthBearerValidatorCallbackHandler"
_SECURED = f"""
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
connections.max.reauth.ms={REAUTHENTICATED_MS}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL
ssl.keystore.type=PEM
ssl.keystore.location={{broker}}
ssl.truststore.type=PEM
ssl.truststore.location={{ca}}
listener.name.ssl.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^.*CN=([^,]+).*$/$1/
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
sasl.oauthbearer.jwks.endpoint.url=file://{{jwks}}
sasl.oauthbearer.expected.issuer=tests
sasl.oauthbearer.expected.audience=kafka
""" + "".join(
    f"listener.name.{listener}.{mechanism.lower()}.{line}\n"
    for listener in ("sasl_ssl", "sasl_plaintext")
    for mechanism, line in (
        (
            "PLAIN",
            f'sasl.jaas.config={_MODULES}.plain.PlainLoginModule required user_plain="{PLAIN_PASSWORD}";',
        ),
        ("SCRAM-SHA-256", f"sasl.jaas.config={_MODULES}.scram.ScramLoginModule required;"),
        ("SCRAM-SHA-512", f"sasl.jaas.config={_MODULES}.scram.ScramLoginModule required;"),
        ("OAUTHBEARER", f"sasl.jaas.config={_MODULES}.oauthbearer.OAuthBearerLoginModule required;"),
        ("OAUTHBEARER", f"sasl.server.callback.handler.class={_MODULES}.oauthbearer.{_VALIDATOR}"),
    )
)
