"""The command line. Each command imports what it runs, so that ``spotstream --help`` stays quick."""

import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from schemas.errors import Problem, UsageError
from streams import output
from topics.drift import Allowed

app = typer.Typer(
    name="spotstream",
    help="Broadcast traffic logs into Kafka, validated, batched and booked at Avstar exactly once.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    epilog="Every command takes --debug, which shows a traceback where an error has one.",
    # A command returns its exit status, or nothing for 0.
    result_callback=lambda status, **_: sys.exit(status or 0),
)

topics_app = typer.Typer(
    help="Compare the declared topics with the broker's, and create or alter them.", no_args_is_help=True
)
dlq_app = typer.Typer(help="The dead letters.", no_args_is_help=True)
profile_app = typer.Typer(help="Mapping profiles.", no_args_is_help=True)
config_app = typer.Typer(help="The settings as they are in effect.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
app.add_typer(dlq_app, name="dlq")
app.add_typer(profile_app, name="profile")
app.add_typer(config_app, name="config")

Role = Literal["validate", "dispatch"]
Format = Literal["csv", "tsv", "fixed", "xml"]


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"spotstream {version('spotstream')}")
        raise typer.Exit


def _named(paths: list[str] | None) -> list[str] | None:
    """An empty path, such as a variable's that is not set, would be the working directory in places."""
    if "" in (paths or ()):
        raise UsageError("a PATH is empty", remedy="give a file, a folder or a glob")
    return paths


def _folder(given: str) -> Path:
    """Likewise: ``Path("")`` is the working directory."""
    if not given:
        raise typer.BadParameter("it is empty")
    return Path(given)


@app.callback()
def _spotstream(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell it and end.")
    ] = False,
) -> None:
    pass


@app.command()
def sandbox(
    *,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free one.")] = 0,
    data_dir: Annotated[
        Path | None, typer.Option(parser=_folder, help="Folder that keeps the ledger.")
    ] = None,
    requests_per_minute: Annotated[int, typer.Option(min=0, help="Limit of the account; 0: none.")] = 0,
    requests_at_once: Annotated[int, typer.Option(min=0, help="Limit of the account; 0: none.")] = 0,
    token_ttl: Annotated[int, typer.Option(min=1, help="Seconds that a token lives.")] = 3600,
    open_to_all: Annotated[bool, typer.Option("--open", help="Ask for no credentials.")] = False,
) -> None:
    """The Avstar sandbox alone; prints its address. API key: sandbox-key."""
    from streams.lab.account import Credentials
    from streams.lab.sandbox import Options, serve

    serve(
        Options(
            host=host,
            port=port,
            data_dir=data_dir,
            credentials=Credentials(required=not open_to_all),
            token_ttl_s=token_ttl,
            requests_per_minute=requests_per_minute,
            requests_at_once=requests_at_once,
        )
    )


@app.command()
def generate(
    *,
    records: Annotated[int, typer.Option(min=0, help="How many.")],
    seed: Annotated[int, typer.Option(help="Another one gives another log; the same one the same.")] = 0,
    format_: Annotated[Format, typer.Option("--format", help="Of the log.")] = "csv",
    bad_rate: Annotated[float, typer.Option(min=0, max=1, help="Share of records that are bad.")] = 0.0,
    truth: Annotated[Path | None, typer.Option(help="File that gets what is wrong, as JSON lines.")] = None,
) -> None:
    """A realistic log on stdout, all four kinds of record mixed."""
    from streams.lab.generate import print_log

    print_log(records, seed, bad_rate, format_, truth)


@app.command()
def tail(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH…", callback=_named, help="Files, folders and globs.")
    ],
    *,
    profile: Annotated[str, typer.Option(help="Mapping profile, a name or a TOML file.")] = "",
    once: Annotated[bool, typer.Option("--once", help="Stop at the end of what is there.")] = False,
    done_dir: Annotated[
        Path | None, typer.Option(parser=_folder, help="Folder to move files to that are published.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete files that are published.")] = False,
) -> int:
    """Follow files into the raw topic, each record exactly once.

    With --done-dir or --delete a file goes once its end is published: with --once, when it was rotated away,
    or after tail.complete_after_s. Exit status 1 if a file was refused, as an empty one is with --once, if
    anything may have been destroyed before it could be read, or if --once was stopped before the end.
    """
    from streams import log, settings
    from streams.tail.disposal import Disposal
    from streams.tail.tailer import run

    loaded = settings.load()
    log.configure(loaded.log)
    return run(loaded, paths, profile, once=once, disposal=Disposal(done_dir, delete=delete))


@app.command()
def worker(
    context: typer.Context,
    *,
    role: Annotated[Role | None, typer.Option(help="Only this one; by default both, a process each.")] = None,
    leash: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> int:
    """The Faust workers: validate raw records into batches, dispatch batches to Avstar."""
    from streams import log, settings
    from streams.worker import run, run_role

    loaded = settings.load()
    log.configure(loaded.log)
    return run(loaded, debug=context.obj) if role is None else run_role(loaded, role, leash)


@app.command()
def demo(
    *,
    file: Annotated[
        list[str] | None, typer.Option(callback=_named, help="Tail these instead of a generated log.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Mapping profile of the files.")] = "",
    records: Annotated[int, typer.Option(min=1, help="Of the generated log.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Another one gives another log; the same one the same.")] = 0,
    bad_rate: Annotated[float, typer.Option(min=0, max=1, help="Share of records that are bad.")] = 0.01,
    json: Annotated[bool, typer.Option("--json", help="End with a JSON object, not a table.")] = False,
) -> int:
    """The whole pipeline on embedded Kafka, registry and Avstar sandbox, until every line is accounted for.

    A log grows while it is tailed. Settings come from the environment; of spotstream.toml it takes no more
    than tail.profile. Exit status 1 if any record is missing or booked twice.
    """
    from streams.lab.demo import Options, run

    return run(Options(tuple(file or ()), profile, records, seed, bad_rate, json))


@app.command()
def up(
    *,
    data_dir: Annotated[
        Path, typer.Option(parser=_folder, help="Folder that keeps topics, schemas and ledger.")
    ] = Path(".spotstream"),
    json: Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON object.")] = False,
) -> None:
    """Kafka, schema registry and Avstar sandbox in the foreground until SIGTERM or Ctrl-C.

    Prints one line with their addresses when they are ready, and writes them as settings to the file env
    in the data folder: set -a; . .spotstream/env
    """
    from streams.lab.up import run

    run(data_dir, as_json=json)


def _tell(changes: Iterable[object]) -> None:
    """A line for each change of topics."""
    from streams.console import printable

    typer.echo("\n".join(printable(str(change)) for change in changes) or "the topics are as declared")


@topics_app.command("plan")
def topics_plan() -> int:
    """What apply would do: + create, ~ alter, ! alter if allowed by name, = leave though it differs.

    Exit status 1 if any + or ~, or if a topic would be refused as it is.
    """
    from streams.settings import load
    from topics.drift import Action
    from topics.provision import plan

    changes = plan(load().kafka)
    _tell(changes)
    return int(any(change.action in (Action.CREATE, Action.ALTER) or change.forgets for change in changes))


@topics_app.command("apply")
def topics_apply(
    *,
    allow: Annotated[
        list[Allowed] | None,
        typer.Option(help="Alter these, too: what takes away or cannot be undone, ! in the plan."),
    ] = None,
) -> int:
    """Create the topics that are missing and alter settings that differ; nothing shrinks unless allowed.

    Exit status 1 if a topic is left as it would be refused.
    """
    from streams.settings import load
    from topics.drift import Action
    from topics.provision import apply

    changes = apply(load().kafka, allow=allow or ())
    _tell(changes)
    return int(any(change.forgets and change.action is Action.ASK for change in changes))


@app.command()
def audit(
    *,
    file: Annotated[str, typer.Option(help="Only the file of this path, or the feed:NAME.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Account for every record: delivered, rejected, dead-lettered, or missing.

    Exit status 1 if any is missing or there twice.
    """
    from streams import log, settings
    from streams.audit.account import report

    loaded = settings.load()
    log.configure(loaded.log)
    return report(loaded, file, as_json=json)


@app.command()
def subscribe(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="spot, avail, billing or makegood.")],
    *,
    since: Annotated[str, typer.Option(help="Only what was validated then or later.")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until Ctrl-C.")] = False,
) -> int:
    """Validated records as JSON lines on stdout, all that were committed when it began.

    Moments are RFC 3339 with an offset, or how long ago: 2h, 1d.
    """
    from streams import log, settings
    from streams.jsonlines import run

    loaded = settings.load()
    log.configure(loaded.log)
    return run(loaded, kind, since, follow=follow)


@app.command()
def replay(
    *,
    since: Annotated[str, typer.Option(help="What was published then or later.")] = "",
    until: Annotated[str, typer.Option(help="And before that.")] = "",
    offsets: Annotated[
        list[str] | None, typer.Option(metavar="P:A-B", help="Raw records: partition, first and last offset.")
    ] = None,
    file: Annotated[
        str, typer.Option(help="Only batches with records of this file's path, or its end.")
    ] = "",
    kind: Annotated[
        str, typer.Option(help="Only batches with spot, avail, billing or makegood records.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew what was interrupted.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
) -> int:
    """Send every batch that holds a match to Avstar again, whole, with the same body and key.

    Moments are RFC 3339 with an offset, or how long ago: 2h, 1d. Given again after an interruption, the same
    command goes on where it stopped. Exit status 1 if a batch cannot be sent as it was any more.
    """
    from streams import log, settings
    from streams.recovery.replay import Arguments, run

    loaded = settings.load()
    log.configure(loaded.log)
    arguments = Arguments(since, until, tuple(offsets or ()), file, kind)
    return run(loaded, arguments, dry_run=dry_run, restart=restart, as_json=json)


@dlq_app.command("list")
def dlq_list(
    *,
    reason: Annotated[str, typer.Option(help="Only these: invalid, too_large, refused, …")] = "",
    kind: Annotated[str, typer.Option(help="Only these: record or batch, or a kind of record.")] = "",
    file: Annotated[str, typer.Option(help="Only those of the file of this path, or the end of it.")] = "",
    older: Annotated[str, typer.Option(help="Only what failed before: 2h ago, or an RFC 3339 time.")] = "",
    newer: Annotated[str, typer.Option(help="Only what failed after that.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON line for each.")] = False,
) -> None:
    """The open dead letters; moments are RFC 3339, or how long ago: 2h, 1d."""
    from streams.recovery.deadletters import Filter, list_letters
    from streams.settings import load

    list_letters(load(), Filter(reason, kind, file, older, newer), as_json=json)


@dlq_app.command("show")
def dlq_show(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key, or its beginning.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print it as it is on the topic.")] = False,
) -> None:
    """All of one dead letter, the fields at fault marked."""
    from streams.recovery.deadletters import show_letter
    from streams.settings import load

    show_letter(load(), key, as_json=json)


@dlq_app.command("redrive")
def dlq_redrive(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY…", help="Keys, or their beginnings.")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All open letters.")] = False,
    reason: Annotated[str, typer.Option(help="All of this reason.")] = "",
    profile: Annotated[str, typer.Option(help="Judge records by this profile, not by their file's.")] = "",
    edit: Annotated[Path | None, typer.Option(help="File with the bytes of the one record, mended.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
) -> int:
    """Send dead letters again: batches as they were, rejected records judged anew.

    A letter ends when its batch is booked. Exit status 1 if one that is named by its key stays.
    """
    from streams.recovery.redrive import Wanted, run
    from streams.settings import load

    wanted = Wanted(keys or (), everything, reason)
    return run(load(), wanted, profile=profile, edit=edit, dry_run=dry_run)


@dlq_app.command("discard")
def dlq_discard(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key, or its beginning.")],
    *,
    why: Annotated[str, typer.Option(help="The receipt keeps it.")],
) -> None:
    """End a dead letter that will not be sent again."""
    from streams.console import printable
    from streams.recovery.discard import discard
    from streams.settings import load

    typer.echo(f"discarded {printable(discard(load(), key, why))}")


@profile_app.command("list")
def profile_list() -> None:
    """The built-in profiles."""
    from streams.profiles import listing

    print(listing())


@profile_app.command("show")
def profile_show(
    name: Annotated[str, typer.Argument(metavar="P", help="A built-in's name or a TOML file.")],
) -> None:
    """A profile as its TOML file has it, once it is known to be right; copy it to write another."""
    from schemas import profile

    profile.load(name)
    print(profile.read(name), end="")


@profile_app.command("check")
def profile_check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to judge.")],
    *,
    profile: Annotated[str, typer.Option(help="Mapping profile, a name or a TOML file.")] = "",
    first: Annotated[int, typer.Option(min=0, help="Rejections to show in full.")] = 20,
    mapped: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Accepted records to show as they are mapped.")
    ] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
) -> int:
    """What would be rejected of a file, and why; needs no Kafka. Exit status 1 when something would."""
    from schemas.profile import load
    from streams.profiles import check
    from streams.settings import load as settings

    tail = settings().tail
    report = check(file, load(profile or tail.profile), tail, first, mapped)
    print(report.as_json() if as_json else report.as_text())
    return 1 if report.rejected or report.damage else 0


@config_app.command("show")
def config_show() -> None:
    """All settings as TOML, each with where it comes from; secrets are never shown."""
    from streams import configuration
    from streams.settings import load

    print(configuration.as_toml(load()))


@config_app.command("check")
def config_check() -> int:
    """Whether all settings and the files that they name can be used; asks no service. Exit status 2: no."""
    from streams import configuration
    from streams.console import printable
    from streams.settings import load

    problems = configuration.problems(load())
    for problem in problems:
        print(f"spotstream: {printable(str(problem))}", file=sys.stderr)
    if not problems:
        print("the settings can be used")
    return UsageError.exit_status if problems else 0


@app.command()
def doctor(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH…]", callback=_named, help="Files, folders and globs to be tailed."),
    ] = None,
    *,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds that it may take.")] = 10.0,
    json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
) -> int:
    """What is reachable, what is wrong, and what to do; changes nothing and sends no record.

    Exit status 3 if something cannot be reached, 1 if something is wrong.
    """
    from streams import log, settings
    from streams.doctor import run

    loaded = settings.load()
    log.configure(loaded.log)
    return run(loaded, paths or (), timeout_s=timeout, as_json=json)


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME…]",
            help="tail, tail-many, tail-delay, validate, rejects, dispatch, latency, transactions, scale; "
            "else all.",
        ),
    ] = None,
    *,
    records: Annotated[
        int,
        typer.Option(
            min=10_000,
            help="In each run, rounded down to whole batches; of `scale` in the largest. "
            "`validate` needs 50,000.",
        ),
    ] = 1_000_000,
    runs: Annotated[
        int, typer.Option(min=1, help="Counted ones of each, after three to warm up (`scale`: none).")
    ] = 5,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the results into this file: .svg, .png, .pdf. Needs the extra `bench`."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """The benchmarks, each beside its baselines in one run."""
    from streams.lab.bench.benchmarks import run

    run(names or [], records, runs, as_json=json, picture=plot)


def _wrong_usage(error: typer.TyperException) -> int:
    """Say what is wrong with the command line, in one line and not in typer's six; gives the exit status."""
    from streams.console import printable

    context: Any = getattr(error, "ctx", None)
    where = context.command_path if context else "spotstream"
    # It is empty where a command without arguments has printed its help.
    if what := " ".join(error.format_message().split()).rstrip("."):
        print(printable(f"{where}: {what}; see `{where} --help`"), file=sys.stderr)
    return error.exit_code


def _run(*, debug: bool) -> None:
    try:
        sys.exit(app(standalone_mode=False, obj=debug))
    except SystemExit:
        sys.stdout.flush()  # at the interpreter's end an error would change the exit status, and not be told
        raise


def main() -> None:
    """Run a command. What goes wrong is one line on stderr and an exit status; --debug adds the traceback."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        output.prepare()
        _run(debug=debug)
    except typer.TyperException as error:
        sys.exit(_wrong_usage(error))
    except BrokenPipeError:
        output.give_up()  # whoever read it has enough of it
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        if debug:
            traceback.print_exc()
        if not isinstance(error, Problem):
            remedy = "" if debug else "--debug shows where"
            error = Problem(f"unexpected {type(error).__name__}: {error}", remedy=remedy)
        from streams.console import printable

        print(*map(printable, (f"spotstream: {error}", *error.below)), sep="\n", file=sys.stderr)
        output.finish()
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
