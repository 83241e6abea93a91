"""How a request proves who sends it."""

from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from schemas.errors import UsageError
from streams import log

_log = log.get(__name__)


class Authorizer(Protocol):
    """Gives the headers that open Avstar, fresh for each attempt."""

    async def headers(self) -> dict[str, str]:
        """The headers; their values are secret."""
        ...


class ApiKey:
    """A scoped API key, from the settings or from a file that is read again when it changes.

    Without a key there is no header. A file that cannot be read any more leaves the key as it was.
    """

    def __init__(self, key: SecretStr, file: Path | None) -> None:
        """Raises ``UsageError`` when the file cannot be read or holds no key."""
        self._key = _checked(key.get_secret_value(), "setting avstar.api_key")
        self._file = file
        self._version: tuple[int, ...] = ()
        if file:
            self._read(file)

    async def headers(self) -> dict[str, str]:
        """``Authorization: Bearer``."""
        if self._file:
            try:
                self._read(self._file)
            except UsageError as error:
                _log.error("api_key_kept", why=str(error))
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def _read(self, file: Path) -> None:
        try:
            status = file.stat()
            version = status.st_ino, status.st_mtime_ns, status.st_size
            if version == self._version:
                return
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot be read: {error}", where="setting avstar.api_key_file") from None
        key = _checked(text, str(file))
        if not key:
            raise UsageError("holds no key", where=str(file))
        self._key, self._version = key, version


def _checked(key: str, where: str) -> str:
    """``key`` without white space around it; it has to fit into a header."""
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise UsageError("an API key is printable ASCII on one line", where=where)
    return key
