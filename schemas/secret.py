"""A secret: where it comes from, and how it is renewed."""

import logging
from pathlib import Path

from pydantic import SecretStr

from schemas.errors import UsageError

logger = logging.getLogger(__name__)


class Secret:
    """A secret from the settings, or from a file that is read again when it changes or is replaced.

    A file that cannot be read any more, in the middle of being replaced, leaves the secret as it was.
    """

    def __init__(self, value: SecretStr, file: Path | None, setting: str) -> None:
        """``setting`` names the setting, and with ``_file`` that of the file.

        Raises ``UsageError`` when the file cannot be read or holds no secret.
        """
        self._value = _checked(value.get_secret_value(), f"setting {setting}")
        self._file, self._setting = file, f"setting {setting}_file"
        self._version: tuple[int, ...] = ()
        self._complaint = ""
        if file:
            self._read(file)

    @property
    def value(self) -> str:
        """The secret as it is now; empty when there is none. Looks at the file, which is quick."""
        if self._file:
            try:
                self._read(self._file)
                self._complaint = ""
            except UsageError as error:
                if str(error) != self._complaint:  # once, not with every request
                    logger.warning("the secret could not be read again and is kept: %s", error)
                self._complaint = str(error)
        return self._value

    def _read(self, file: Path) -> None:
        try:
            status = file.stat()
            version = status.st_ino, status.st_mtime_ns, status.st_size
            if version == self._version:
                return
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot be read: {error}", where=self._setting) from None
        except UnicodeDecodeError:  # which would show a part of it
            raise UsageError("is not UTF-8", where=f"{self._setting}: {file}") from None
        value = _checked(text, f"{self._setting}: {file}")
        if not value:
            raise UsageError("holds no secret", where=f"{self._setting}: {file}")
        self._value, self._version = value, version


def _checked(value: str, where: str) -> str:
    """``value`` without white space around it; it has to fit into a header."""
    value = value.strip()
    if not value.isascii() or not value.isprintable():
        raise UsageError("a secret is printable ASCII on one line", where=where)
    return value
