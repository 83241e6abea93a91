"""A real Chromium, and what a page in it has to keep: no errors, nothing from elsewhere, readable text."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

expect.set_options(timeout=60_000)

#: Texts whose contrast is below WCAG's AA, as a reader sees them.
CONTRAST = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number)
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    return 0.2126 * x + 0.7152 * y + 0.0722 * z
  }
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor)
      if (colour.length < 4 || colour[3] === 1) return colour
    }
    return [255, 255, 255]
  }
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), poor = []
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element)
    const text = walker.currentNode.textContent.trim()
    if (!text || !element.checkVisibility() || element.closest(".unseen, noscript, option")) continue
    const [a, b] = [luminance(parse(style.color)), luminance(ground(element))].sort((x, y) => y - x)
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700)
    const ratio = (a + 0.05) / (b + 0.05)
    if (ratio < (large ? 3 : 4.5)) poor.push(`${ratio.toFixed(2)} ${text}`)
  }
  return poor
}"""

#: What a screen reader would stumble over: controls, tables and sections without a name, headings skipped.
UNNAMED = """() => {
  const found = [], seen = element => element.checkVisibility()
  for (const one of document.querySelectorAll("a, button, input, select")) {
    const labels = [...one.labels ?? []].map(label => label.textContent).join("")
    const name = one.textContent.trim() || one.ariaLabel || labels
    if (seen(one) && !name) found.push(one.outerHTML)
  }
  for (const table of document.querySelectorAll("table")) {
    if (!table.caption?.textContent.trim()) found.push("a table without caption")
    for (const head of table.querySelectorAll("th")) if (!head.scope) found.push(`th ${head.textContent}`)
  }
  for (const part of document.querySelectorAll("section, dialog")) {
    const name = document.getElementById(part.getAttribute("aria-labelledby"))
    if (!name?.textContent.trim()) found.push(part.outerHTML.slice(0, 80))
  }
  let level = 0
  for (const heading of document.querySelectorAll("h1, h2, h3")) {
    const next = Number(heading.tagName[1])
    if (next > level + 1) found.push(`${heading.textContent} is h${next} after h${level}`)
    level = next
  }
  for (const name of ["main", "header", "nav", "footer", "h1"]) {
    if (!document.querySelector(name)) found.push(`no ${name}`)
  }
  const ids = [...document.querySelectorAll("[id]")].map(one => one.id)
  if (new Set(ids).size !== ids.length) found.push("an id is there twice")
  if (!document.documentElement.lang) found.push("no language")
  return found
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's; without it the test is skipped."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium here: install Debian's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, asked: list[str] | None = None, **context: object) -> Iterator[Page]:
    """A page that asks nobody but its server and says nothing to the console; ``asked``: what it asks."""
    told: list[str] = []
    asked = [] if asked is None else asked
    page = browser.new_page(**context)  # type: ignore[arg-type]
    page.set_default_timeout(60_000)
    page.on("console", lambda message: told.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    yield page
    assert {urlsplit(one).netloc for one in asked} == {urlsplit(url).netloc}
    assert told == []
    page.context.close()
