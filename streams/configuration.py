"""The settings as they are in effect: where each comes from, and whether all that they name can be used."""

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from schemas import profile
from schemas.errors import Problem, UsageError
from schemas.redact import HIDDEN
from schemas.registry import Registry
from streams.console import printable
from streams.dispatch.avstar import Avstar
from streams.settings import FILE, PREFIX, Settings, in_file
from streams.status.access import Access
from topics.connection import KafkaSettings

_DEFAULT = "default"

#: User and password in an address. Up to the last @: a password may hold anything.
_USER_INFO = re.compile(r"(?<=://)\S*@")


class Setting(NamedTuple):
    """One setting: its ``value`` as TOML, None when it is not set, and its ``source``.

    A secret's value is ``***``, or empty; so are user and password in an address.
    """

    section: str
    name: str
    value: str | None
    source: str


def effective(settings: Settings) -> Iterator[Setting]:
    """Every setting, in order."""
    told = in_file()
    variables = {variable.upper(): variable for variable in os.environ}
    for section, values in settings:
        for name, value in values:
            variable = variables.get(f"{PREFIX}{section}__{name}".upper())
            source = f"environment, {variable}" if variable else _DEFAULT
            if not variable and name in told.get(section, {}):
                source = FILE
            yield Setting(section, name, _toml(value), source)


def as_toml(settings: Settings) -> str:
    """All settings as TOML, each with its source beside it."""
    found = list(effective(settings))
    file = Path(FILE).resolve()
    lines = [f"# {printable(str(file))}{'' if file.exists() else ' does not exist'}"]
    width = max(len(_assigned(setting)) for setting in found if len(_assigned(setting)) < 60)
    section = ""
    for setting in found:
        if setting.section != section:
            section = setting.section
            lines += ["", f"[{section}]"]
        lines.append(f"{_assigned(setting):<{width}}  # {setting.source}")
    return "\n".join(lines)


def _assigned(setting: Setting) -> str:
    return f"# {setting.name} =" if setting.value is None else f"{setting.name} = {setting.value}"


def _toml(value: Any) -> str | None:
    match value:
        case None:
            return None
        case SecretStr():
            return json.dumps(HIDDEN if value.get_secret_value() else "")
        case str() | Path():
            # A JSON string is a TOML string, but JSON lets stand what a terminal obeys.
            shown = json.dumps(_USER_INFO.sub(f"{HIDDEN}@", str(value)), ensure_ascii=False)
            return "".join(one if one.isprintable() else f"\\U{ord(one):08X}" for one in shown)
        case dict():
            return (
                "{" + ", ".join(f"{_toml(str(key))} = {_toml(inner)}" for key, inner in value.items()) + "}"
            )
        case bool():
            return str(value).lower()
    return str(value)


def problems(settings: Settings) -> list[Problem]:
    """What of the settings cannot be used, looked at as the commands look at their start; asks no service."""
    found = dict(_unreadable(settings))
    checks: dict[str, Callable[[], object]] = {
        "tail": lambda: profile.load(settings.tail.profile),
        "kafka": lambda: _check_kafka(settings.kafka),
        "registry": lambda: Registry(settings.registry),
        "worker": lambda: Access(settings.worker),
        "avstar": lambda: asyncio.run(_check_avstar(settings)),
    }
    for section, check in checks.items():
        if any(name.startswith(f"{section}.") for name in found):
            continue  # it would find that again
        try:
            check()
        except Problem as problem:
            found[section] = problem
        except OSError as error:
            found[section] = UsageError(f"cannot be used: {error}", where=f"setting {section}")
    return list(found.values())


def _unreadable(settings: Settings) -> Iterator[tuple[str, Problem]]:
    """The settings that name files that cannot be read."""
    for section, values in settings:
        for name, value in values:
            if isinstance(value, Path):
                try:
                    value.read_bytes()
                except OSError as error:
                    why = f"{value} cannot be read: {error.strerror}"
                    yield f"{section}.{name}", UsageError(why, where=f"setting {section}.{name}")


def _check_kafka(kafka: KafkaSettings) -> None:
    kafka.ssl_context()
    kafka.oauth_ssl_context()
    try:
        AdminClient(kafka.confluent())
    except KafkaException as error:
        raise UsageError(error.args[0].str(), where="setting kafka") from None


async def _check_avstar(settings: Settings) -> None:
    async with aclosing(Avstar(settings.avstar, requests_at_once=1)):
        pass
