"""The list of deliberate bugs does not rot: each still fits the code, and its test is there."""

import re

import pytest
from mutations import MUTATIONS, ROOT, Mutation, noticed

_EACH = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)


@_EACH
def test_a_mutation_fits(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text("utf-8").count(mutation.old) == 1
    compile(
        (ROOT / mutation.file).read_text("utf-8").replace(mutation.old, mutation.new), mutation.file, "exec"
    )
    file, _, name = mutation.test.partition("::")
    assert re.search(rf"^(async )?def {name}", (ROOT / "tests" / file).read_text("utf-8"), re.MULTILINE)


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(1800)
@_EACH
def test_a_mutation_is_noticed(mutation: Mutation) -> None:
    assert not noticed(mutation._replace(new=mutation.old))
    assert noticed(mutation)


def test_what_came_of_them_is_written_down() -> None:
    table = (ROOT / "docs" / "mutations.md").read_text("utf-8")
    for mutation in MUTATIONS:
        assert f"| {mutation.name} | `{mutation.file}` | `tests/{mutation.test}` |" in table
