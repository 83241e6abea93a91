"""The effective settings: what they are, where they come from, and that no secret is among them."""

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from test_canaries import CANARIES

from streams import configuration, settings
from streams.cli import main
from streams.settings import AvstarSettings, Settings, TailSettings


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings file but the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SPOTSTREAM_")]:
        monkeypatch.delenv(name)


class Done(NamedTuple):
    """What came of a command."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A ``config`` command in the working directory, with the settings that are given in the environment."""

    def run(*arguments: str, **variables: str) -> Done:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(f"SPOTSTREAM_{name}", value)
            patch.setattr("sys.argv", ["spotstream", "config", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, *capsys.readouterr())

    return run


def test_show_is_toml_that_says_where_each_value_comes_from(run: Run) -> None:
    Path("spotstream.toml").write_text(
        "[batch]\nrecords = 3000\nseconds = 2.5\n"
        "[dispatch]\npolicy = {404 = 'retry'}\n[kafka]\nssl_cafile = 'ca.pem'\n"
    )
    done = run("show", BATCH__RECORDS="4000", tail__name="nightly")
    assert done.returncode == 0, done.stderr
    shown = tomllib.loads(done.stdout)
    assert (shown["batch"]["records"], shown["batch"]["seconds"]) == (4000, 2.5)
    assert shown["dispatch"]["policy"] == {"404": "retry"}
    assert shown["kafka"]["ssl_cafile"] == "ca.pem"
    for line in (
        "records = 4000 # environment, SPOTSTREAM_BATCH__RECORDS",
        "seconds = 2.5 # spotstream.toml",
        'name = "nightly" # environment, SPOTSTREAM_tail__name',
        'upload = "auto" # default',
        "# ssl_keyfile = # default",
    ):
        assert line in re.sub(" +", " ", done.stdout).splitlines()
    assert str(Path("spotstream.toml").resolve()) in done.stdout


def test_show_reads_past_a_byte_order_mark(run: Run) -> None:
    Path("spotstream.toml").write_text("[batch]\nrecords = 3000\n", "utf-8-sig")
    done = run("show")
    assert done.returncode == 0, done.stderr
    assert "records = 3000 # spotstream.toml" in re.sub(" +", " ", done.stdout).splitlines()


def test_show_has_every_setting() -> None:
    loaded = settings.load()
    shown = {(one.section, one.name): one for one in configuration.effective(loaded)}
    assert set(shown) == {(section, name) for section, values in loaded for name, _ in values}
    assert {one.source for one in shown.values()} == {"default"}


def test_neither_command_tells_a_secret(run: Run) -> None:
    Path("spotstream.toml").write_text("[avstar]\napi_key = 'canary-of-the-file'\n")
    Path("key").write_text("canary-in-a-file\n")
    canaries = CANARIES | {
        "AVSTAR__PROXY": "http://someone:canary@in@proxy:3128",
        "AVSTAR__OAUTH_CLIENT_SECRET_FILE": "key",
    }
    del canaries["AVSTAR__API_KEY"]
    shown, checked = run("show", **canaries), run("check", **canaries)
    assert shown.returncode == 0
    assert checked.returncode == 2, "an address holds no credentials"
    assert "canary" not in shown.stdout + shown.stderr + checked.stdout + checked.stderr
    values = tomllib.loads(shown.stdout)
    assert values["avstar"]["api_key"] == values["kafka"]["sasl_password"] == "***"
    assert values["avstar"]["proxy"] == "http://***@proxy:3128"
    assert values["avstar"]["oauth_client_secret_file"] == "key", "files are named"


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
        lambda text: "@" not in text
    )
)
def test_any_text_is_shown_as_it_is(text: str) -> None:
    shown = configuration.as_toml(
        Settings(tail=TailSettings(profile=text), avstar=AvstarSettings(api_key=SecretStr("")))
    )
    assert tomllib.loads(shown)["tail"]["profile"] == text
    assert shown.replace("\n", "").isprintable()


def test_check_says_that_all_is_right(run: Run) -> None:
    done = run("check")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"BATCH__RECORDS": "7"}, "batch.records"),
        ({"BATCH__RECRODS": "5000"}, "SPOTSTREAM_BATCH__RECRODS"),
        ({"KAFKA__MIN_INSYNC_REPLICAS": "2"}, "min_insync_replicas"),
        ({"KAFKA__SSL_CAFILE": "gone.pem"}, "kafka.ssl_cafile"),
        ({"KAFKA__SSL_CAFILE": "key", "KAFKA__SECURITY_PROTOCOL": "SSL"}, "kafka"),
        ({"KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}, "kafka.sasl_username"),
        ({"REGISTRY__CAFILE": "gone.pem"}, "registry.cafile"),
        ({"AVSTAR__API_KEY_FILE": "gone"}, "avstar.api_key_file"),
        ({"AVSTAR__API_KEY_FILE": "."}, "avstar.api_key_file"),
        ({"AVSTAR__API_KEY_FILE": "empty"}, "avstar.api_key_file"),
        ({"AVSTAR__OAUTH_CLIENT_ID": "me"}, "avstar.oauth_client_secret"),
        ({"AVSTAR__BASE_URL": "http://api.example"}, "avstar.base_url"),
        ({"AVSTAR__SSL_CERTFILE": "key"}, "avstar.ssl_certfile"),
        ({"TAIL__PROFILE": "gone.toml"}, "gone.toml"),
    ],
)
def test_check_names_what_is_wrong_once(run: Run, variables: dict[str, str], named: str) -> None:
    Path("key").write_text("no certificate")
    Path("empty").write_text("")
    done = run("check", **variables)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("spotstream: ")
    assert named in line


@pytest.mark.parametrize(
    "servers",
    [
        "", " ", ",", "a:1,", "a:1,,b:1", "127.0.0.1:99999", "a:0", "a:65536", "a:b", "a:", ":9092", "a b",
        "a b:1", "a:1 b:2", "ftp://x", "PLAINTEXT://x:1", "me@x:1", "x:1/y", "::1:9092", "[::1:9092", "[x]:1",
        "a\x1b[2J:1", "a:1\n", "a:\u0661", "a\u202e:1", "a:1;b:1",
    ],
)  # fmt: skip
def test_what_is_no_list_of_brokers_is_refused(run: Run, servers: str) -> None:
    done = run("check", KAFKA__BOOTSTRAP_SERVERS=servers)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "kafka.bootstrap_servers" in line


@pytest.mark.parametrize(
    "servers",
    [
        "localhost:9092",
        "a:1, b-2.example:65535 ,c_3",
        "10.0.0.1:9092",
        "[::1]:9092,[fe80::1%eth0]:9092",
        "büro:1",
    ],
)
def test_brokers_are_named_as_both_client_libraries_take_them(run: Run, servers: str) -> None:
    done = run("check", KAFKA__BOOTSTRAP_SERVERS=servers)
    assert (done.returncode, done.stderr) == (0, "")


def test_check_names_everything_that_is_wrong(run: Run) -> None:
    done = run("check", KAFKA__SSL_CAFILE="gone.pem", AVSTAR__API_KEY_FILE="gone", TAIL__PROFILE="gone.toml")
    assert [
        name for name in ("kafka.ssl_cafile", "avstar.api_key_file", "gone.toml") if name not in done.stderr
    ] == []
    assert done.returncode == 2
