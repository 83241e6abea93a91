"""The figures of docs/scaling.md and README.md are what their makers would write; the simulation is sound."""

import orjson
import performance
import pytest
import scaling
from scaling import BILLION, Costs, Flow


def test_the_simulated_tables_are_as_they_would_be_made_today() -> None:
    found = scaling.PAGE.read_text(encoding="utf-8")
    assert found == scaling.page(found), "python tests/scaling.py"


def test_the_measured_tables_are_those_of_the_results() -> None:
    results = orjson.loads(performance.RESULTS.read_bytes())
    for path in performance.PAGES:
        found = path.read_text(encoding="utf-8")
        assert found == performance.fill(found, performance.parts(results)), (
            "python tests/performance.py docs/performance.json"
        )


def booked_a_second(setup: scaling.Setup, costs: Costs) -> float:
    return Flow(setup, costs).seen.booked / (scaling.SPAN_S - scaling.FILL_S)


def test_what_is_booked_is_what_comes_while_nothing_limits() -> None:
    assert booked_a_second(BILLION, Costs()) == pytest.approx(BILLION.records_a_second, rel=0.02)


@pytest.mark.parametrize(
    ("costs", "change", "limit"),
    [
        (Costs(validate_us=200, window_ms=0), {}, 1e6 / 200),
        (Costs(transactions_a_second=2), {}, 5000),  # one of each role for a batch, which then is full
        (Costs(answer_s=10), {"requests_at_once": 2}, 1000),
        (Costs(), {"requests_per_minute": 60}, 57 / 60.05 * 5000),
    ],
)
def test_each_limit_holds_alone(costs: Costs, change: dict[str, int], limit: float) -> None:
    setup = BILLION._replace(partitions=1, batch_seconds=60.0, **change)
    assert booked_a_second(setup, costs) == pytest.approx(limit, rel=0.1)


def test_every_cost_is_explained() -> None:
    assert scaling.MEANINGS.keys() == set(Costs._fields)
