"""The status page and the dead letters in a real browser, on a flow that runs."""

import csv
import io
import json
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

import pytest
from browser import CONTRAST, UNNAMED, chromium, opened
from confluent_kafka import Producer
from flow import Flow, until
from playwright.sync_api import expect
from test_metrics import scrape
from test_status import key, letter

from streams.lab.service import free_port
from topics.catalogue import DLQ

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

#: Bytes of the page and all that it asked for up to its first view.
TRANSFERRED = """() => {
  const asked = performance.getEntriesByType("resource")
  const first = asked.findIndex(one => one.name.endsWith("/view"))
  return [performance.getEntriesByType("navigation")[0], ...asked.slice(0, first + 1)]
    .reduce((sum, one) => sum + one.transferSize, 0)
}"""

FIRST_CONTENT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"

TOKEN = "a token of some length"
NEW_YORK = ZoneInfo("America/New_York")


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def running(browser, lab, tmp_path_factory):
    """A flow with a worker, whose pages are at ``running.pages``."""
    port = free_port(2)
    with Flow(lab, tmp_path_factory.mktemp("pages")) as flow:
        flow.pages = [f"http://localhost:{port + index}/status/" for index in range(2)]
        flow.start("worker", WORKER__WEB_PORT=port, BREAKER__MINIMUM_CALLS=2, BREAKER__OPEN_S=1)
        until(lambda: all(told(page, "view").get("looked") for page in flow.pages), 150)
        yield flow


def told(page, path, token=""):
    """The JSON at a path below a page; {} where it does not answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(page + path, headers=headers), timeout=10
        ) as answer:
            return json.loads(answer.read())
    except (OSError, ValueError):
        return {}


def changed(log, change):
    """Rewrite a log's good spots; ``change`` gets the cells and may change them."""
    head = log.path.read_bytes().partition(b"\n")[0].decode()
    out = io.StringIO(newline="")
    for number, record in enumerate(log.records, 1):
        cells = next(csv.reader(io.StringIO(record.decode(), newline="")))
        if cells[0] == "SPOT" and number not in log.faults:
            change(cells)
            csv.writer(out).writerow(cells)
        else:
            out.write(record.decode())
    log.path.write_bytes(f"{head}\n{out.getvalue()}".encode())


def test_what_becomes_of_a_file(running, browser):
    """From the first look to booked and rejected, under 100 KB and without a reload."""
    with opened(browser, running.pages[0]) as page:
        expect(page.locator("#title")).to_have_text("Everything is in")
        assert 10_000 < page.evaluate(TRANSFERRED) < 100_000
        before = told(running.pages[0], "view")["booked"]["new"]
        log = running.log(4_000, seed=51, bad_rate=0.02)
        running.tail(log)
        booked = before + log.truth.records - log.truth.bad
        expect(page.locator("#day")).to_contain_text(f"Booked{booked:,} records")
        expect(page.locator("#title")).to_have_text("Everything is in")
        expect(page.locator("#open")).to_contain_text("dead letters are open")
        fields = Counter(field for of in log.faults.values() for field in of)

        def causes_told():
            rejected = told(running.pages[1], "view")["rejected"]
            return Counter({cause["about"]: cause["letters"] for cause in rejected["causes"]})

        until(lambda: fields <= causes_told())  # each process follows the letters on its own
        causes = causes_told()
        field = max(causes, key=causes.get)
        page.locator("#causes a", has_text=field).first.click()
        expect(page.locator("#count")).to_contain_text(f"{causes[field]:,} of ")
        expect(page.locator("#rows tr").first).to_contain_text(field)
        assert page.locator("select[name=about]").input_value() == field


def test_avstar_is_down_and_spots_are_to_air(running, browser):
    """Both roles' pages say so, the metric too; all is well again by itself."""
    soon = (datetime.now(UTC) + timedelta(minutes=40)).astimezone(NEW_YORK)
    day = soon - timedelta(hours=6)
    log = running.log(1_000, seed=52, bad_rate=0.0)
    airs = []

    def air(cells):
        cells[1], cells[2], cells[11] = "WABC", day.strftime("%m/%d/%Y"), "SCHED"
        cells[8] = f"{soon.hour + (24 if soon.hour < 6 else 0):02}:{soon.minute:02}:00"
        airs.append(cells)

    changed(log, air)
    assert airs
    running.faults({"kind": "status", "status": 503, "probability": 1})
    running.tail(log)
    with opened(browser, running.pages[0]) as validate, opened(browser, running.pages[1]) as dispatch:
        for page in (validate, dispatch):
            expect(page.locator("#title")).to_contain_text("Avstar is down")
            expect(page.locator("#said")).to_contain_text("Trouble")
            expect(page.locator("#health dd").first).to_contain_text("down since")
            row = page.locator("#airing tr").first
            expect(row).to_have_text(f"this hour or the next{len(airs):,}0")
            expect(page.locator("#steps tr").last).to_contain_text("1 batch")
            expect(page.locator("#files")).to_contain_text("not catching up")
        metrics = running.pages[1].replace("/status/", "/metrics")
        until(lambda: scrape(metrics).values("airing_unbooked", within="1h") == [len(airs)])
        running.faults()
        for page in (validate, dispatch):
            expect(page.locator("#title")).to_have_text("Everything is in")
            expect(page.locator("#airing tr").first).to_have_text("this hour or the next00")


def test_what_a_log_says_is_text(running, browser):
    """Markup and quotes in a station's name, in an id, in a file's path: shown, never run."""
    script = "<script>window.hacked=1</script>"
    image = '"><img src=x onerror="window.hacked=1">'
    log = running.log(50, seed=53, bad_rate=0.0)

    def spoil(cells):
        cells[1], cells[4], cells[6] = image, script, f"{script}{image}'"

    changed(log, spoil)
    named = log.path.rename(log.path.with_name("<img src=x onerror=window.hacked=1> '\"&.csv"))
    assert running.run("tail", named, "--once")[0] == 0
    where = running.pages[0] + "letters/"
    until(lambda: told(where, "list?file=" + urllib.request.quote(named.name)).get("total"))
    with opened(browser, where) as page:
        page.get_by_label("File").fill(named.name)
        page.keyboard.press("Enter")
        expect(page.locator("#rows tr").first).to_contain_text(named.name)
        page.locator("#rows button").first.click()
        shown = page.locator("#shown")
        expect(shown.locator("pre").first).to_contain_text(script)
        expect(shown.locator("tr.fault").first).to_contain_text(image)
        assert page.locator("main img, main script, dialog img, dialog script").count() == 0
        assert page.evaluate("window.hacked") is None


def test_ten_thousand_letters(running, browser):
    """The list answers filters and pages, and the page never stands still."""
    producer = Producer(running.kafka.confluent())
    for number in range(10_000):
        given = {"reason": "many", "fields": ("rate",) if number % 100 else ("net", "gross")}
        producer.produce(DLQ.name, letter(number, **given).dump(), key(number))
        producer.poll(0)
    producer.flush()
    with opened(browser, running.pages[1]) as page:
        page.evaluate(
            "window.longest = 0; new PerformanceObserver(list => list.getEntries().forEach("
            "task => window.longest = Math.max(window.longest, task.duration))).observe({type: 'longtask'})"
        )
        expect(page.locator("#causes tr", has_text="many").first).to_contain_text("9,900")
        assert page.evaluate("window.longest") < 2000
    asked = []
    with opened(browser, running.pages[1] + "letters/?reason=many", asked=asked) as page:
        expect(page.locator("#count")).to_contain_text("10,000")
        assert all("reason=many" in url for url in asked if "/list" in url)
        assert page.locator("#rows tr").count() == 100
        newest = page.locator("#rows .where").first.inner_text()
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#place")).to_contain_text("101 to 200 of 10,000")
        assert page.locator("#rows .where").first.inner_text() != newest
        page.get_by_label("Field or answer").select_option("net")
        expect(page.locator("#place")).to_contain_text("1 to 100 of 100")
        page.get_by_role("button", name="All").click()
        page.locator("select[name=reason]").select_option("many")
        expect(page.locator("#count")).to_contain_text("10,000")
        # Nothing but what is shown is there, so it does not matter how many there are.
        assert page.locator("*").count() < 2500


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_everybody_can_read_it(running, browser, width, scheme):
    """Names, headings, contrast, no scrolling sideways; all of it by keyboard, with the focus in sight."""
    look = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    for path in ("", "letters/"):
        with opened(browser, running.pages[0] + path, **look) as page:
            page.locator("#airing tr" if not path else "#rows tr").first.wait_for()
            assert page.evaluate(UNNAMED) == []
            assert page.evaluate(CONTRAST) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
            assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
            page.keyboard.press("Enter")
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.closest('main') !== null")
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_letter_by_keyboard(running, browser):
    with opened(browser, running.pages[0] + "letters/?reason=invalid") as page:
        button = page.locator("#rows button").first
        button.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#shown h3").first).to_be_visible()
        assert page.evaluate(UNNAMED) == []
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate("document.activeElement.id") == "letter-title"
        assert len(page.url.partition("#")[2]) == 64
        page.keyboard.press("Escape")
        expect(page.locator("#letter")).to_be_hidden()
        assert page.evaluate("document.activeElement.closest('tr') === document.querySelector('#rows tr')")


@pytest.mark.slow
def test_how_fast_it_is(running, browser):
    """A change within 2 s, and the first content hardly later than the browser has a line of text.

    That line, a page of this server, too, tells what a machine and a browser need for themselves.
    """
    painted, bare, followed = [], [], []
    producer = Producer(running.kafka.confluent())
    for number in range(10):
        line = browser.new_page()
        line.goto(running.pages[0].replace("/status/", "/health"))
        line.wait_for_timeout(500)
        bare.append(line.evaluate(FIRST_CONTENT))
        line.context.close()
        with opened(browser, running.pages[0]) as page:
            expect(page.locator("#steps tr")).to_have_count(3)
            page.wait_for_timeout(500)
            painted.append(page.evaluate(FIRST_CONTENT))
            begun = time.monotonic()
            given = {"reason": f"late-{number}", "records": 10_000 + number}
            producer.produce(DLQ.name, letter(number, **given).dump(), key(20_000 + number))
            producer.flush()
            page.locator("#causes tr", has_text=f"late-{number}").wait_for()
            followed.append(time.monotonic() - begun)
    first = f"first content {median(painted):.0f} ms, of a line of text {median(bare):.0f} ms"
    print(f"{first}; a change after {median(followed):.2f} s")
    assert median(painted) < 100 or median(painted) < 1.5 * median(bare)
    assert median(followed) < 2


def test_a_token_is_demanded_and_given(running, browser):
    """By form in a browser, by header elsewhere; probes need none."""
    port = free_port(2)
    address = f"http://localhost:{port}"
    worker = running.start("worker", "--role", "validate", WORKER__WEB_PORT=port, WORKER__WEB_TOKEN=TOKEN)
    until(lambda: told(address, "/health"))
    until(lambda: told(address, "/status/view", TOKEN).get("looked"))
    for path in ("view", "role", "letters/list", "letters/letter?key=x", "../metrics", "page.js"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/status/{path}")
        assert refused.value.code == 401
        assert refused.value.headers["Content-Security-Policy"].startswith("default-src 'none'")
    page = browser.new_page()
    page.goto(f"{address}/status/")
    page.get_by_label("Token").fill("not the token")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    assert page.evaluate(CONTRAST) == []
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#steps tr")).to_have_count(3)
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert TOKEN not in cookie["value"]
    page.context.close()
    worker.end(signal.SIGTERM)
    assert TOKEN not in worker.said


def test_a_worker_that_would_answer_strangers_does_not_start(running):
    status, said = running.run("worker", WORKER__WEB_HOST="0.0.0.0", WORKER__WEB_PORT=free_port(2))
    assert status == 2
    assert "worker.web_host" in said
    assert "worker.web_token" in said
    assert "Traceback" not in said
