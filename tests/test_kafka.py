"""The embedded broker: it starts, keeps its data, stays on loopback, and never outlives its starter."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from processes import left_after, listening, tree

from schemas.errors import Problem, UsageError
from streams.lab.kafka import Broker

pytestmark = pytest.mark.broker

_STARTER = """
import sys, time
from pathlib import Path
from streams.lab.kafka import Broker
broker = Broker(Path(sys.argv[1]))
broker.start()
print(broker.pid, flush=True)
time.sleep(600)
"""


def _produce(bootstrap: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    producer.produce(topic, value)
    assert producer.flush(15) == 0


def _first_message(bootstrap: str, topic: str) -> bytes | None:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reader", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    message = consumer.poll(20)
    consumer.close()
    return message and message.value()


def _cluster_id(broker: Broker) -> str:
    return AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=15).cluster_id


def test_gives_back_a_message_of_16_mib(broker: Broker, make_topic) -> None:
    topic = make_topic(config={"max.message.bytes": str(17 * 1024 * 1024)})
    value = os.urandom(16 * 1024 * 1024)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.max.bytes": 17 * 1024 * 1024})
    producer.produce(topic, value)
    assert producer.flush(15) == 0
    assert _first_message(broker.bootstrap, topic) == value


def test_listens_on_loopback_only(broker: Broker) -> None:
    addresses = listening([psutil.Process(broker.pid)])
    host, port = broker.bootstrap.split(":")
    assert (host, int(port)) in addresses
    assert {ip for ip, _ in addresses} == {"127.0.0.1"}


def test_refuses_a_folder_that_is_in_use(broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="in use"):
        Broker(Path(psutil.Process(broker.pid).cwd())).start()


def test_keeps_data_address_and_identity_through_a_crash(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(15)
        _produce(broker.bootstrap, "kept", b"before the crash")
        before = broker.bootstrap, _cluster_id(broker)
        crashed = psutil.Process(broker.pid)
        broker.kill()
        assert left_after([crashed], 5) == []
        broker.start()
        after = broker.bootstrap, _cluster_id(broker)
        assert after == before
        assert _first_message(broker.bootstrap, "kept") == b"before the crash"


@pytest.mark.parametrize("victim", ["starter", "leash"])
def test_is_gone_when_what_holds_it_is_killed(tmp_path: Path, victim: str) -> None:
    with subprocess.Popen([sys.executable, "-c", _STARTER, str(tmp_path)], stdout=subprocess.PIPE) as starter:
        try:
            pid = int(starter.stdout.readline())
            held = tree(starter.pid)[1:]
            assert pid in {process.pid for process in held}
            os.kill(starter.pid if victim == "starter" else psutil.Process(pid).ppid(), signal.SIGKILL)
            assert left_after(held, 15) == []
        finally:
            starter.kill()


def test_a_failed_start_shows_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "topics").mkdir()
    (tmp_path / "topics" / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=abc\n")
    broker = Broker(tmp_path)
    with pytest.raises(Problem, match="Kafka: ended while starting, with status 1") as failed:
        broker.start()
    assert re.search(r"node.?id", "\n".join(failed.value.below))
    assert broker.pid is None
