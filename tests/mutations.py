"""Deliberate bugs, each of which a test has to notice: ``pytest -m slow tests/test_mutations.py``.

Each is put into a copy of the tree, where its test is run and must fail.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
_COPIED = ("docs", "schemas", "streams", "tests", "topics", "pyproject.toml")


class Mutation(NamedTuple):
    """``old`` stands once in ``file``; with ``new`` in its place ``test`` fails."""

    name: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = (
    Mutation(
        "the offset is committed before what is produced",
        "topics/transaction.py",
        "            produce(self._producer)\n            if offsets:\n",
        """\
            if offsets:
                self._producer.send_offsets_to_transaction(list(offsets), group, 10)
                self._producer.commit_transaction(10)
                self._producer.begin_transaction()
            produce(self._producer)
            if False:
""",
        "test_ownership.py::test_a_lane_that_raises_ends_the_process_and_commits_nothing",
    ),
    Mutation(
        "a batch's key is made of its hashes in another order",
        "schemas/hashes.py",
        'sha256(bytes.fromhex("".join(placement_hashes)))',
        'sha256(bytes.fromhex("".join(sorted(placement_hashes))))',
        "test_batch.py::test_the_key_is_sha_256_over_the_hashes_in_order",
    ),
    Mutation(
        "the checkpoint is outside its records' transaction",
        "streams/tail/round.py",
        "        send_all(producer, CHECKPOINTS.name, [message(moved) for moved in",
        """\
        if self._raw:
            producer.commit_transaction()
            producer.begin_transaction()
        send_all(producer, CHECKPOINTS.name, [message(moved) for moved in""",
        "test_tail_kills.py::test_killed_at_a_step_each_line_arrives_once",
    ),
    Mutation(
        "a batch is tried again under a new key",
        "streams/dispatch/delivery.py",
        "self._client.send(batch.key, batch.body,",
        'self._client.send(__import__("secrets").token_hex(32), batch.body,',
        "test_delivery.py::test_every_fault_is_outlasted_under_the_same_key",
    ),
    Mutation(
        "the position is read before the fence",
        "topics/ownership.py",
        """\
        producers = await asyncio.gather(*(self._demand(self._fence, tp) for tp in wanted))
        found = await self._demand(self._read_places, wanted) if wanted else []
""",
        """\
        found = await self._demand(self._read_places, wanted) if wanted else []
        producers = await asyncio.gather(*(self._demand(self._fence, tp) for tp in wanted))
""",
        "test_ownership.py::test_the_position_is_read_after_the_fence",
    ),
    Mutation(
        "a batch that failed is taken for one that has ended",
        "streams/dispatch/delivery.py",
        "        return patient or not isinstance(answer, Unavailable) or self._throttle.breaker.state != ",
        "        return False and self._throttle.breaker.state != ",
        "test_delivery.py::test_every_fault_is_outlasted_under_the_same_key",
    ),
    Mutation(
        "a last line that is not complete is published",
        "streams/formats/framing.py",
        "        ends = self._ends(data, final=final)\n",
        "        ends = self._ends(data, final=True)\n",
        "test_framing.py::test_an_unfinished_record_is_held",
    ),
    Mutation(
        "a record's hash leaves its revision out",
        "schemas/hashes.py",
        "    *names, last = sorted(columns)\n",
        '    *names, last = sorted(set(columns) - {"revision"})\n',
        "test_judge.py::test_another_revision_is_another_record",
    ),
    Mutation(
        "the position is that of the last record, not the next",
        "streams/validate/outcome.py",
        "len(window), appended_ms, last + 1)",
        "len(window), appended_ms, last)",
        "test_validate.py::test_every_raw_offset_is_in_the_batch_or_in_one_letter",
    ),
    Mutation(
        "dead letters are outside their window's transaction",
        "streams/validate/outcome.py",
        """\
        for topic, block in self.validated.items():
            send_blocks(producer, topic, [block])
        if self.batch:
""",
        """\
        for key, letter in self.letters:
            producer.produce(DLQ.name, letter.dump(), key, headers=letter.connect_headers(RAW.name))
        producer.commit_transaction()
        producer.begin_transaction()
        self.letters.clear()
        for topic, block in self.validated.items():
            send_blocks(producer, topic, [block])
        if self.batch:
""",
        "test_steps.py::test_both_roles_killed_at_each_step",
    ),
    Mutation(
        "receipts are outside the transaction of their position",
        "streams/dispatch/lane.py",
        """\
            for settlement in settlements:
                settlement.produce(producer)
""",
        """\
            for settlement in settlements:
                settlement.produce(producer)
            producer.commit_transaction()
            producer.begin_transaction()
""",
        "test_steps.py::test_both_roles_killed_at_each_step",
    ),
    Mutation(
        "a transaction is done again without a look whether it was committed",
        "topics/ownership.py",
        "            if (place.position, place.note) == (offset.offset, offset.metadata):\n",
        "            if False:\n",
        "test_ownership.py::test_a_transaction_that_its_coordinator_does_not_know",
    ),
    Mutation(
        "a redrive marks its letters after it has handed over",
        "streams/recovery/redrive.py",
        "                for topic, block in sending.validated.items():\n",
        """\
                producer.commit_transaction()
                producer.begin_transaction()
                for topic, block in sending.validated.items():
""",
        "test_steps.py::test_redrive_killed_at_each_step",
    ),
    Mutation(
        "a replay notes its place after it has handed over",
        "streams/recovery/resend.py",
        "            producer.flush(self._settings.kafka.timeout_s)  # tells where they are\n",
        """\
            producer.flush(self._settings.kafka.timeout_s)
            producer.commit_transaction()
            producer.begin_transaction()
""",
        "test_steps.py::test_replay_killed_at_each_step",
    ),
)


def _mutated(mutation: Mutation, folder: Path) -> Path:
    tree = folder / "tree"
    for name in _COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tree / name)
    path = tree / mutation.file
    path.write_text(path.read_text("utf-8").replace(mutation.old, mutation.new), "utf-8")
    return tree


def noticed(mutation: Mutation) -> str:
    """What the test says of the bug; empty when it passes, or does not come to say anything."""
    with tempfile.TemporaryDirectory() as folder:
        tree = _mutated(mutation, Path(folder))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{mutation.test}"],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            check=False,
        )
    failed = re.search(r"\b1 failed", done.stdout) and not re.search(r"\berror", done.stdout.splitlines()[-1])
    said = re.findall(r"^E +(.*)$", done.stdout, re.MULTILINE)
    return (said[0] if said else "failed") if failed else ""
