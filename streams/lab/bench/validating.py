"""``bench validate``: raw records to batches, one core for each contender.

The subject does all of it: judges, hashes, writes Avro to the validated topics, batches and dead letters, in
transactions. The baselines only judge, with the same models, and POST to a sink, at least once.
"""

import sys
import time
from itertools import count
from pathlib import Path

from schemas import profile
from schemas.errors import Problem
from streams import settings
from streams.lab.bench import bento
from streams.lab.bench.baselines import rate
from streams.lab.bench.children import limit_s, running, until
from streams.lab.bench.contest import Contender, Contest
from streams.lab.bench.groups import rewind
from streams.lab.bench.sink import RECORDS
from streams.lab.bench.tailing import tail_once
from streams.lab.gauge import Gauge
from streams.lab.generate import generate, write
from streams.lab.up import Lab
from topics.catalogue import BATCHES, RAW, VALIDATING
from topics.reader import read_all


def contest(lab: Lab, folder: Path, records: int) -> Contest:
    """The contest on ``lab``, whose raw topic is filled first; 1 % of the records are bad."""
    loaded = settings.load(_settings(lab))
    path = folder / "validate.csv"
    with path.open("wb") as file:
        write(file, generate(records, 7, 0.01))
    tail_once(loaded, [path])
    runs = count()

    def ours() -> float:
        return _validate(lab, loaded, folder / f"worker-{next(runs)}.log", records)

    def baseline(name: str) -> Contender:
        def run() -> float:
            return rate(name, lab.broker.bootstrap, f"bench-{name}-{next(runs)}", records)

        return Contender(_BASELINES[name], run)

    def by_bento() -> float:
        group = f"bench-bento-{next(runs)}"
        with path.open(encoding="utf-8") as file:
            header = file.readline().rstrip().split(",")
        mapping = bento.mapping(profile.load("avion"), header)
        return bento.rate(lab.broker.bootstrap, group, records, mapping, folder / f"{group}.json")

    return Contest(
        "validate",
        f"{records:,} mixed records, 1 % bad, one core",
        [
            Contender("spotstream worker --role validate", ours),
            *map(baseline, _BASELINES),
            Contender("Bento kafka_franz, mapping, json_schema, http_client", by_bento, bento.missing()),
        ],
    )


_BASELINES = {
    "aiokafka": "aiokafka getmany, csv, pydantic, orjson, POST",
    "confluent": "confluent-kafka consume, csv, pydantic, orjson, POST",
    "faust": "Faust stream.take(5000), csv, pydantic, orjson, POST",
    "ours": "aiokafka getmany, spotstream's judge, POST",
}


def _settings(lab: Lab) -> dict[str, dict[str, object]]:
    return {
        "kafka": {"bootstrap_servers": lab.broker.bootstrap},
        "registry": {"url": lab.registry.url},
        "tail": {"partitioning": "block"},
        "worker": {"web_port": 0},
        "log": {"level": "warning"},
    }


def _validate(lab: Lab, loaded: settings.Settings, log: Path, records: int) -> float:
    """Validate the raw topic from its beginning; records per second from the first to the last full batch.

    What is left of each partition at the end waits for company, by design, and is not counted.
    """
    rewind(loaded.kafka, VALIDATING, RAW)
    gauge, began_ms = Gauge(loaded, {}), time.time() * 1000
    environment = lab.environment | {"SPOTSTREAM_WORKER__WEB_PORT": "0", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "streams.cli", "worker", "--role", "validate"]
    with log.open("wb") as output, running(command, core=-1, stderr=output, env=environment) as worker:
        until(
            lambda: gauge.caught_up(RAW, VALIDATING),
            [worker],
            limit_s(records),
            lambda: Problem("did not validate the raw topic", where=f"spotstream worker, see {log}"),
        )
    batches = [(m.timestamp()[1], dict(m.headers())) for m in read_all(loaded.kafka, BATCHES.name)]
    ours = [(ms, int(headers["source-records"])) for ms, headers in batches if ms >= began_ms]
    full = [ms for ms, taken in ours if taken == RECORDS]
    if len(full) < 2:
        raise Problem("has too few full batches to tell a rate", where="bench validate", remedy="--records")
    seconds: float = (max(full) - min(full)) / 1000
    return (len(full) - 1) * RECORDS / seconds
