"""A program with a feed: ``python feeder.py NAME RECORDS [STEP N]``; a step that kills it is as in mortal.py.

It publishes numbered lines, seven at a time, and waits for them now and then.
"""

import sys

import confluent_kafka
from mortal import Mortal


def main(name: str, records: int) -> None:
    from tailing import HEADER, lines

    from streams.feed import Feed
    from streams.settings import load

    header = HEADER.decode().strip().split(",")
    with Feed(load(), name, profile="avion", header=header) as feed:
        done = feed.position or 0
        while done < records:
            rows, done = lines(done, min(done + 7, records)), min(done + 7, records)
            feed.publish(rows, done)
            if not done % 100:
                feed.flush()


if __name__ == "__main__":
    if len(sys.argv) > 3:
        Mortal.step, Mortal.last = sys.argv[3], int(sys.argv[4])
        confluent_kafka.Producer = Mortal
    main(sys.argv[1], int(sys.argv[2]))
