"""Settings: where they come from, and that what is wrong is named."""

import re
from pathlib import Path

import pytest

from schemas.errors import UsageError
from streams.settings import Settings, load

DOCS = Path(__file__).parents[1] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No settings file but the test's own."""
    monkeypatch.chdir(tmp_path)


def test_environment_overrides_the_file_and_flags_override_both(tmp_path, monkeypatch):
    (tmp_path / "spotstream.toml").write_text(
        "[batch]\nrecords = 3000\nseconds = 2.0\n[tail]\nname = 'file'\n"
    )
    monkeypatch.setenv("SPOTSTREAM_BATCH__RECORDS", "4000")
    monkeypatch.setenv("SPOTSTREAM_TAIL__NAME", "environment")
    found = load({"tail": {"name": "flag"}})
    assert (found.batch.records, found.batch.seconds, found.tail.name) == (4000, 2.0, "flag")


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("SPOTSTREAM_BATCH__RECORDS", "7", "batch.records"),
        ("SPOTSTREAM_BATCH__RECORDS", "many", "batch.records"),
        ("SPOTSTREAM_BATCH__RECRODS", "5000", "SPOTSTREAM_BATCH__RECRODS"),
        ("SPOTSTREAM_NOPE__X", "1", "SPOTSTREAM_NOPE__X"),
        ("SPOTSTREAM_DISPATCH__POLICY", "{404", "SPOTSTREAM_DISPATCH__POLICY: not valid JSON"),
        ("SPOTSTREAM_DISPATCH__POLICY", "", "SPOTSTREAM_DISPATCH__POLICY: not valid JSON"),
        ("spotstream_dispatch__policy", "[]", "dispatch.policy"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, variable, value, named):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=re.escape(named)):
        load()


def settings_of(kind):
    """Variables of the settings that are of this kind."""
    for section, field in Settings.model_fields.items():
        for name, setting in field.annotation.model_fields.items():
            if kind(name, str(setting.annotation)):
                yield f"SPOTSTREAM_{section}__{name}".upper(), f"{section}.{name}"


FILES = list(settings_of(lambda _, annotation: "Path" in annotation))
SPANS = list(settings_of(lambda name, _: name.endswith("_s")))


@pytest.mark.parametrize(("variable", "named"), [*FILES, ("SPOTSTREAM_TAIL__PROFILE", "tail.profile")])
def test_an_empty_path_is_not_the_working_directory(monkeypatch, variable, named):
    monkeypatch.setenv(variable, "")
    with pytest.raises(UsageError, match=rf"{re.escape(named)}: .*is empty"):
        load()


@pytest.mark.parametrize("value", ["inf", "1e300", "604801", "nan", "-1"])
@pytest.mark.parametrize(("variable", "named"), SPANS)
def test_a_span_of_time_fits_what_counts_it(monkeypatch, variable, named, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=re.escape(named)):
        load()


@pytest.mark.parametrize("section", ["tail", "worker"])
def test_a_transaction_ends_when_brokers_let_it(section):
    for value in (0.5, 901):
        with pytest.raises(UsageError, match=rf"{section}\.transaction_timeout_s"):
            load({section: {"transaction_timeout_s": value}})
    for value in (1, 900):
        assert load({section: {"transaction_timeout_s": value}})


@pytest.mark.parametrize("name", ["partitions", "validated_partitions"])
def test_partitions_are_no_more_than_a_broker_can_make(monkeypatch, name):
    monkeypatch.setenv(f"SPOTSTREAM_KAFKA__{name}", "10001")
    with pytest.raises(UsageError, match=f"kafka.{name}"):
        load()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[batch]\nrecrods = 5000\n", "batch.recrods"),
        ("[nope]\nx = 1\n", "nope"),
        ("[batch\n", "spotstream.toml: not valid TOML"),
        ("[tail]\nname = 'é'\n", "spotstream.toml: not UTF-8: the byte 0xe9 at 15; save it in UTF-8"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, named):
    (tmp_path / "spotstream.toml").write_text(text, "latin-1")
    with pytest.raises(UsageError, match=re.escape(named)):
        load()


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "spotstream.toml").write_bytes(b"\xef\xbb\xbf[batch]\r\nrecords = 3000\r\n")
    assert load().batch.records == 3000


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "spotstream.toml").symlink_to("/proc/self/mem")  # a file, but not at its beginning
    with pytest.raises(UsageError, match=r"cannot be read: .*; let this user read it"):
        load()


@pytest.mark.parametrize(
    "name",
    ["registry.url", "worker.peer_url", "traces.endpoint", "avstar.ledger_url", "kafka.bootstrap_servers"],
)
@pytest.mark.parametrize(
    "url",
    [
        "http://me:hush@host:80",
        "https://hush@host/x",
        "http://host,http://me:hush@other",
        "http://[::1",
        "me:hush@host:9092",
        "me:hush,or@host:9092",
    ],
)
def test_an_address_with_credentials_is_refused_and_not_shown(name, url):
    section, _, setting = name.partition(".")
    with pytest.raises(UsageError, match=re.escape(name)) as caught:
        load({section: {setting: url}})
    assert "hush" not in str(caught.value)


def test_what_is_wrong_is_told_without_pydantic_s_own_words():
    with pytest.raises(UsageError, match=r"^setting kafka\.bootstrap_servers: 'a b' is not as host:port"):
        load({"kafka": {"bootstrap_servers": "a b"}})


def test_a_registry_s_password_does_not_cross_the_network_in_the_clear():
    """Unless nobody else is on it: ``avstar.plain_http``."""
    registry = {"url": "http://registry:8081", "username": "me", "password": "hush"}
    with pytest.raises(UsageError, match=r"registry\.url.*https, or set avstar\.plain_http"):
        load({"registry": registry})
    assert load({"registry": registry, "avstar": {"plain_http": True}})
    assert load({"registry": registry | {"username": ""}})
    for host in ("localhost:8081", "a.localhost", "[::1]:8081", "127.0.0.1"):
        assert load({"registry": registry | {"url": f"http://{host}"}})
    assert load({"registry": registry | {"url": "https://registry"}})
    for url in ("https://registry,http://other", "http://nolocalhost"):
        with pytest.raises(UsageError, match=r"registry\.url"):
            load({"registry": registry | {"url": url}})


def test_every_setting_is_documented_with_its_default():
    text = DOCS.read_text()
    for section, field in Settings.model_fields.items():
        _, _, rest = text.partition(f"\n## {section}\n")
        table = rest.partition("\n## ")[0]
        for name, setting in field.annotation.model_fields.items():
            (row,) = [line for line in table.splitlines() if line.startswith(f"| `{name}` |")]
            default = setting.default
            if default is not None and default != "" and not hasattr(default, "get_secret_value"):
                assert f"`{default}`" in row
