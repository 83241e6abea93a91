"""Small batches, and how they are sent."""

from hashlib import sha256

from schemas.batch import AUTO, Batch, Upload, build
from streams.dispatch.answer import Answer
from streams.dispatch.avstar import Avstar


def batch(*numbers: int, upload: Upload = AUTO) -> Batch:
    """The same numbers give the same batch; a number is in its record's field ``n``."""
    bodies = [b'{"n":%d,"record_type":"spot"}' % number for number in numbers]
    return build([(sha256(body).hexdigest(), body) for body in bodies], upload)


async def send(avstar: Avstar, batch: Batch) -> Answer:
    """One attempt, as dispatch makes it."""
    headers = {"Content-Type": batch.content_type, "Content-Encoding": batch.content_encoding}
    return await avstar.send(batch.key, batch.body, headers, batch.records)
