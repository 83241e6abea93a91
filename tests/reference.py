"""docs/commands.md, made of the command line itself: ``python tests/reference.py > docs/commands.md``."""

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer.main

from streams.cli import app

_HEAD = """\
# Commands

Made of the command line itself, which tells the same with `--help`. Exit status of all: 0 done; 1 done,
but something is missing, duplicated or failed; 2 wrong usage or settings; 3 a service could not be reached
in time. Every command takes `--debug`, which shows a traceback where an error has one. What is not given
comes from the [settings](settings.md).

`spotstream --install-completion` completes commands and options in bash, zsh, fish and PowerShell, in every
new shell; `spotstream --show-completion` prints how, for a place of your own."""

_METAVARS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its full name, subcommands one after the other."""
    for name, command in typer.main.get_command(app).commands.items():
        for part, one in getattr(command, "commands", {"": command}).items():
            yield f"{name} {part}".strip(), one


def _form(option: Any) -> str:
    """The option as it is written, without its value if it has none."""
    kind = option.type_descriptor.annotation
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
    if get_origin(kind) is Literal:
        value = "|".join(get_args(kind))
    elif issubclass(kind, Enum):
        value = "|".join(one.value for one in kind)
    else:
        value = option.metavar or _METAVARS.get(kind, "")
    return f"{option.opts[0]} {value}".strip().replace("|", "\\|")


def _notes(option: Any) -> str:
    notes = ["Required."] if option.required else []
    if option.default not in (None, "", False) and not option.required:
        notes.append(f"Default: `{option.default}`.")
    if get_origin(option.type_descriptor.annotation) is list:
        notes.append("May be given more than once.")
    return " ".join([option.help, *notes])


def text() -> str:
    """The whole page."""
    lines = [_HEAD]
    for name, command in commands():
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
        usage = " ".join([f"spotstream {name}", *(one.metavar for one in arguments)])
        lines += [
            "",
            f"## {usage}",
            "",
            "\n".join(line.strip() for line in command.help.strip().splitlines()),
        ]
        rows = [f"| `{one.metavar}` | {one.help} |" for one in arguments]
        rows += [f"| `{_form(one)}` | {_notes(one)} |" for one in options]
        if rows:
            lines += ["", "| given | means |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
