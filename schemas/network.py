"""What holds wherever we connect or listen: which hosts are this machine, and TLS with files of one's own."""

import ssl
from ipaddress import ip_address
from pathlib import Path

from schemas.errors import UsageError


def is_loopback(host: str) -> bool:
    """Whether an address (of version 6 with or without brackets) or name means this machine only."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


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
