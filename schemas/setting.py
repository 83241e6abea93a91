"""What settings are made of, in all sections."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError


def _given(value: Any) -> Any:
    if value == "":
        raise ValueError("is empty; leave it out to have the default")
    return value


def complaint(error: ValidationError, kind: str) -> tuple[str, str]:
    """The name of the first ``kind`` (setting, key) that is wrong, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return name, f"no such {kind}"
    return name, first["msg"].removeprefix("Value error, ")


#: A text or a file's path that says something where it is set: an empty path would be the working directory.
Name = Annotated[str, BeforeValidator(_given)]
File = Annotated[Path, BeforeValidator(_given)]

#: A week at the most: with infinity, or more milliseconds than a client library counts, nothing starts.
Seconds = Annotated[float, Field(le=604_800)]
