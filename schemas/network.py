"""What holds wherever we connect or listen: what addresses may say, and TLS with files of one's own."""

import ssl
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import UsageError


def is_loopback(host: str) -> bool:
    """Whether an address (of version 6 with or without brackets) or name means this machine only.

    So do all names below ``localhost``: RFC 6761, 6.3.
    """
    try:
        return f".{host}".endswith(".localhost") or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def anonymous(url: str) -> str:
    """``url``, or several with commas between them. Raises ``ValueError`` where one holds credentials.

    Whoever logs an address would log them; there are settings for them.
    """
    for one in url.split(","):
        parts = urlsplit(one if "://" in one else f"//{one}")
        if parts.username or parts.password:
            raise ValueError("an address holds no credentials")
    return url


def in_clear(url: str) -> bool:
    """Whether what is sent to ``url`` (or several) leaves this machine so that others can read it."""
    addresses = [urlsplit(one) for one in url.split(",")]
    return any(one.scheme == "http" and not is_loopback(one.hostname or "") for one in addresses)


def tls(
    settings: str, cafile: Path | None, certfile: Path | None = None, keyfile: Path | None = None
) -> ssl.SSLContext:
    """Trusts the authority of ``cafile``, or the system's, and shows a certificate if there is one.

    Raises :class:`UsageError`, which names the setting: ``settings`` is what stands before ``cafile`` and
    ``certfile`` in their names (``kafka.ssl_``).
    """
    name = "cafile"
    try:
        context = ssl.create_default_context(cafile=cafile)
        if certfile:
            name = "certfile"
            # Without a password, OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(certfile, keyfile, password="")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot be used: {error}", where=f"setting {settings}{name}") from None
    return context
