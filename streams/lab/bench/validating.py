"""``bench validate``: raw records to batches, one core for each contender; ``bench rejects``: bad ones.

The subject does all of it: judges, hashes, writes Avro to the validated topics, batches and dead letters, in
transactions. The baselines only judge, with the same models, and POST to a sink, at least once.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

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

#: Records of which there surely are full batches to tell a rate from: they lie in blocks of some 8,000, each
#: of which fills one.
LEAST = 50_000

#: Bad ones of a hundred: what is usual, and what shows whether the good ones pay for the bad.
_BAD, _VERY_BAD = 1, 30

#: A batch on its topic: when, in ms since 1970, and how many raw records its window had.
Made = tuple[int, int]


def contest(lab: Lab, folder: Path, records: int) -> Contest:
    """The contest on ``lab``, whose raw topic is filled first; 1 % of the records are bad."""
    subject = _Subject(lab, folder, records, _BAD)
    runs = count()

    def baseline(name: str) -> Contender:
        def run() -> float:
            return rate(name, lab.broker.bootstrap, f"bench-{name}-{next(runs)}", records)

        return Contender(_BASELINES[name], run)

    def by_bento() -> float:
        group = f"bench-bento-{next(runs)}"
        with subject.path.open(encoding="utf-8") as file:
            header = file.readline().rstrip().split(",")
        mapping = bento.mapping(profile.load("avion"), header)
        return bento.rate(lab.broker.bootstrap, group, records, mapping, folder / f"{group}.json")

    return Contest(
        "validate",
        f"{records:,} mixed records, {_BAD} % bad, one core",
        [
            Contender("spotstream worker --role validate", subject.run),
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


def rejects(folder: Path, records: int, runs: int) -> dict[str, Any]:
    """Measure a log with many bad records beside one with few, each on a lab of its own, in turn.

    Gives what :func:`.contest.show` shows.
    """
    with ExitStack() as stack:

        def contender(bad: int) -> Contender:
            below = folder / f"{bad}"
            lab = stack.enter_context(Lab(below))
            return Contender(f"spotstream, {bad} % bad", _Subject(lab, below, records, bad).run)

        work = f"spotstream worker --role validate, {records:,} mixed records, one core"
        return Contest("rejects", work, [contender(_VERY_BAD), contender(_BAD)]).hold(runs)


class _Subject:
    """A validating worker on a lab, whose raw topic is filled here with a log of which ``bad`` % are that."""

    def __init__(self, lab: Lab, folder: Path, records: int, bad: int) -> None:
        self._lab, self._folder, self._records = lab, folder, records
        self._settings = settings.load(
            {
                "kafka": {"bootstrap_servers": lab.broker.bootstrap},
                "registry": {"url": lab.registry.url},
                "tail": {"partitioning": "block"},
                "log": {"level": "warning"},
            }
        )
        self.path = folder / "validate.csv"
        with self.path.open("wb") as file:
            write(file, generate(records, 7, bad / 100))
        tail_once(self._settings, [self.path])
        self._runs = count()

    def run(self) -> float:
        """Validate the raw topic from its beginning; gives :func:`rate_of` its batches."""
        rewind(self._settings.kafka, VALIDATING, RAW)
        gauge, began_ms = Gauge(self._settings, {}), time.time() * 1000
        log = self._folder / f"worker-{next(self._runs)}.log"
        environment = self._lab.environment | {"SPOTSTREAM_WORKER__WEB_PORT": "0", "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-m", "streams.cli", "worker", "--role", "validate"]
        with log.open("wb") as output, running(command, core=-1, stderr=output, env=environment) as worker:
            until(
                lambda: gauge.caught_up(RAW, VALIDATING),
                [worker],
                limit_s(self._records),
                lambda: Problem("did not validate the raw topic", where=f"spotstream worker, see {log}"),
            )
        batches = [
            (message.timestamp()[1], int(dict(message.headers())["source-records"]))
            for message in read_all(self._settings.kafka, BATCHES.name)
        ]
        return rate_of([made for made in batches if made[0] >= began_ms], self._records)


def rate_of(batches: Sequence[Made], records: int) -> float:
    """Records per second from the first to the last full batch of a run that was given so many.

    What is left of each partition at the end waits for company, by design, and is not counted. Raises
    :class:`Problem` when the batches are not of all records, or too few are full.
    """
    # Only a window in which all records are bad has no batch, and one of more than a handful never is that.
    if (taken := sum(of for _, of in batches)) != records:
        raise Problem(f"its batches have {taken:,} of {records:,} records", where="spotstream worker")
    full = [ms for ms, of in batches if of == RECORDS]
    begin, end = min(full, default=0), max(full, default=0)
    if begin == end:
        raise Problem("has too few full batches to tell a rate", where="bench validate", remedy="--records")
    return sum(of for ms, of in batches if begin < ms <= end) * 1000 / (end - begin)
