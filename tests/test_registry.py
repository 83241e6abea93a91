"""The registry's client: against the embedded registry, and against none."""

import copy
import json
import socket
from collections.abc import Iterator

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError
from pydantic import SecretStr

from schemas.codec import Codec, schema, schema_id
from schemas.errors import Problem, Unreachable, UsageError
from schemas.records import KINDS
from schemas.registry import Registry, RegistrySettings
from streams.lab.registry import Registry as Embedded


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Embedded(tmp_path_factory.mktemp("registry")) as running:
        yield running.url


@pytest.mark.broker
def test_schemas_register_once_and_come_back_by_id(url: str) -> None:
    ids = {}
    for kind in KINDS:
        ids[kind] = Registry(RegistrySettings(url=url)).register(f"once.{kind}", schema(kind))
        assert Registry(RegistrySettings(url=url)).register(f"once.{kind}", schema(kind)) == ids[kind]
    assert len(set(ids.values())) == len(KINDS)
    for kind, number in ids.items():
        assert Registry(RegistrySettings(url=url)).schema(number) == schema(kind)
        assert schema_id(Codec(kind, number)._frame) == number


@pytest.mark.broker
def test_a_schema_must_stay_compatible_in_both_directions(url: str) -> None:
    registry = Registry(RegistrySettings(url=url))
    first = registry.register("grown", schema("spot"))
    grown = copy.deepcopy(schema("spot"))
    grown["fields"].append({"name": "later", "type": ["null", "string"], "default": None})
    assert registry.register("grown", grown) != first
    for break_it in (
        lambda fields: fields.pop(4),
        lambda fields: fields.append({"name": "new", "type": "string"}),
    ):
        broken = copy.deepcopy(grown)
        break_it(broken["fields"])
        with pytest.raises(
            Problem, match=r"version 1 of grown-value .* are incompatible: (spot_id|new): "
        ) as caught:
            registry.register("grown", broken)
        assert caught.value.exit_status == 1
        others = SchemaRegistryClient({"url": url})
        with pytest.raises(SchemaRegistryError, match="409"):
            others.register_schema("grown-value", Schema(json.dumps(broken), "AVRO"))


@pytest.mark.broker
def test_an_unknown_id_is_told(url: str) -> None:
    with pytest.raises(Problem, match="schema 987654 was refused"):
        Registry(RegistrySettings(url=url)).schema(987_654)


def test_a_registry_that_is_not_there_is_told_without_secrets() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for given in (f"http://127.0.0.1:{port}", f"http://someone:hush@127.0.0.1:{port}"):
        settings = RegistrySettings(url=given, username="someone", password=SecretStr("hush"), timeout_s=1)
        if "@" in given:
            settings = RegistrySettings(url=given, timeout_s=1)
        with pytest.raises(Unreachable) as caught:
            Registry(settings).schema(1)
        assert f"http://127.0.0.1:{port}: no schema registry answers" in str(caught.value)
        assert "hush" not in str(caught.value)


def test_a_registry_that_hangs_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match="timed out"):
            Registry(RegistrySettings(url=address, timeout_s=0.3)).schema(1)


def test_an_address_that_is_none_is_a_wrong_setting() -> None:
    with pytest.raises(UsageError, match=r"setting registry: Invalid url"):
        Registry(RegistrySettings(url="nonsense"))
