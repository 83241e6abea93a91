"""The command line. Each command imports what it runs, so that ``spotstream --help`` stays quick."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from schemas.errors import Problem

app = typer.Typer(
    name="spotstream",
    help="Broadcast traffic logs into Kafka, validated, batched and booked at Avstar exactly once.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)

topics_app = typer.Typer(help="Compare the declared topics with the broker's, and create or alter them.", no_args_is_help=True)
dlq_app = typer.Typer(help="The dead letters.", no_args_is_help=True)
profile_app = typer.Typer(help="Mapping profiles.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
app.add_typer(dlq_app, name="dlq")
app.add_typer(profile_app, name="profile")

Role = Literal["validate", "dispatch"]
Format = Literal["csv", "tsv", "fixed", "xml"]


def main() -> None:
    """Run a command; a :class:`Problem` is one line on stderr and its exit status."""
    from streams import log, settings  # noqa: F401

    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        status = app(standalone_mode=False)
    except Problem as problem:
        if debug:
            raise
        print(f"spotstream: {problem}", file=sys.stderr)
        sys.exit(problem.exit_status)
    sys.exit(status if isinstance(status, int) else 0)
