// The status page: asks for the view twice a second and writes what has changed, as text.
// It is loaded once the page has been painted as it was served: without the cards, which are empty until then.

const HUNGRY_MS = 500, HIDDEN_MS = 10000, PATIENCE_MS = 8000, MOST_CAUSES = 12
const LEVELS = { unknown: "Looking", well: "All is well", busy: "Working", trouble: "Trouble" }
const WITHIN = { "1h": "this hour or the next", "4h": "4 hours", "24h": "24 hours" }
const at = id => document.getElementById(id)
const numbers = new Intl.NumberFormat()
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" })
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" })

const many = (count, one, more) => `${numbers.format(count)} ${count === 1 ? one : more}`

function moment(text) {
  if (!text) return "never"
  const then = new Date(text)
  const today = then.toDateString() === new Date().toDateString()
  return (today ? "" : day.format(then) + ", ") + clock.format(then)
}

function spell(seconds) {
  if (seconds === null || seconds === undefined) return "–"
  if (seconds < 1) return "under 1 s"
  if (seconds < 100) return `${Math.round(seconds)} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 100) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`
}

function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"]
  let unit = 0
  while (bytes >= 1000 && unit < 4) { bytes /= 1000; unit++ }
  return `${unit ? bytes.toFixed(1) : numbers.format(bytes)} ${units[unit]}`
}

const speed = (a_second, what) => a_second >= 0.5 ? `${numbers.format(Math.round(a_second))} ${what}/s` : "–"

function write(element, text) {
  if (element.textContent !== text) element.textContent = text
}

// Rows of cells; a cell is a text, or {text, href, bad}. What is there is kept, and with it the focus.
function fill(body, rows) {
  while (body.rows.length > rows.length) body.deleteRow(-1)
  rows.forEach((cells, index) => {
    const row = body.rows[index] ?? body.insertRow()
    cells.forEach((cell, place) => {
      const given = typeof cell === "object" ? cell : { text: cell }
      let box = row.cells[place]
      if (!box) {
        box = document.createElement(place ? "td" : "th")
        if (!place) box.scope = "row"
        row.append(box)
      }
      box.classList.toggle("bad", Boolean(given.bad))
      if (!given.href) return write(box, given.text)
      let link = box.firstElementChild
      if (!link) { link = document.createElement("a"); box.replaceChildren(link) }
      link.href = given.href
      write(link, given.text)
    })
  })
}

function define(list, entries) {
  entries.forEach(([name, text, bad], index) => {
    let term = list.children[2 * index], value = list.children[2 * index + 1]
    if (!term) {
      term = document.createElement("dt"); value = document.createElement("dd")
      list.append(term, value)
    }
    write(term, name); write(value, text)
    value.classList.toggle("bad", Boolean(bad))
  })
  while (list.children.length > 2 * entries.length) list.lastElementChild.remove()
}

function say(level, title, notes) {
  const box = at("verdict")
  if (box.dataset.level !== level) {
    box.dataset.level = level
    write(at("level"), LEVELS[level])
    write(at("said"), `${LEVELS[level]}: ${title}`)  // heard once, not with every figure
  }
  write(at("title"), title)
  document.title = `${LEVELS[level]}: spotstream`
  const list = at("notes")
  notes.forEach((note, index) => {
    const item = list.children[index] ?? list.appendChild(document.createElement("li"))
    write(item, note)
  })
  while (list.children.length > notes.length) list.lastElementChild.remove()
}

function show(view) {
  at("cards").hidden = false
  say(view.verdict.level, view.verdict.title, view.verdict.notes)
  fill(at("workers"), view.roles.map(role => [
    role.role,
    { text: role.held.length ? `holds ${role.held.join(", ")}` : role.state, bad: !role.answers || role.held.length },
    numbers.format(role.partitions.length),
  ]))
  write(at("from"), `told by ${view.role}`)
  if (!view.looked) return
  write(at("when"), `As of ${moment(view.looked)}${view.reading ? "; what happened before is still being read" : ""}`)
  showSteps(view)
  fill(at("airing"), view.airing.map(soon => [
    WITHIN[soon.within],
    { text: numbers.format(soon.waiting), bad: soon.waiting && soon.within === "1h" },
    { text: numbers.format(soon.dead), bad: soon.dead },
  ]))
  define(at("health"), health(view))
  const { new: fresh, known, rejected, dead } = view.booked
  define(at("day"), [
    ["Booked", many(fresh, "record", "records")],
    ["Known before", many(known, "record", "records")],
    ["Rejected by Avstar", many(rejected, "record", "records"), rejected],
    ["Given up", many(dead, "batch", "batches"), dead],
  ])
  showCauses(view.rejected)
}

function showSteps(view) {
  const { files, validate, dispatch } = view
  fill(at("steps"), [
    ["Read from files", files.behind ? size(files.behind) : "nothing", "–", "–"],
    ["Validated", validate.waiting ? many(validate.waiting, "record", "records") : "nothing",
      spell(validate.oldest_s), speed(validate.a_second, "records")],
    ["Booked at Avstar", dispatch.waiting
      ? `${many(dispatch.waiting, "batch", "batches")}${dispatch.records ? `, about ${many(dispatch.records, "record", "records")}` : ""}`
      : "nothing", spell(dispatch.oldest_s), speed(dispatch.a_second, "records")],
  ])
  const parts = [`${many(files.files, "file", "files")}, ${many(files.records, "record", "records")} published`]
  if (files.last) parts.push(`the last ones at ${moment(files.last)}`)
  if (files.gone) parts.push(`${many(files.gone, "file was", "files were")} destroyed before the end was read`)
  const eta = view.caught_up_s
  if (validate.waiting || dispatch.waiting) {
    parts.push(eta === null ? "not catching up at the moment" : `caught up in about ${spell(eta)}`)
  }
  write(at("files"), parts.join("; ") + ".")
}

function health(view) {
  const last = ["Last booking", moment(view.booked.last)]
  const avstar = view.avstar
  if (!avstar) return [["State", "not known: dispatch does not answer here"], last]
  const down = avstar.breaker !== "closed"
  return [
    ["State", `${down ? "down" : "up"} since ${moment(avstar.since)}`, down],
    last,
    ["Failed", avstar.requests ? `${numbers.format(avstar.failures)} of ${many(avstar.requests, "request", "requests")} in a minute` : "no request in a minute", avstar.failures],
    ["Wait for a turn", spell(avstar.wait_s)],
    ["In flight", `${numbers.format(avstar.in_flight)} of ${numbers.format(avstar.limit)}`],
    ...(avstar.token_age_s === null ? [] : [["Token", `${spell(avstar.token_age_s)} old`]]),
  ]
}

function showCauses(rejected) {
  const { letters, records, causes, forgotten } = rejected
  write(at("open"), letters
    ? `${many(letters, "dead letter is", "dead letters are")} open, of ${many(records, "record", "records")}; one may have several reasons.`
      + (forgotten ? ` ${numbers.format(forgotten)} older ones are not counted here.` : "")
    : "No dead letter is open.")
  at("causes-table").hidden = !causes.length
  fill(at("causes"), causes.slice(0, MOST_CAUSES).map(cause => [
    { text: cause.about || "the whole", href: "letters/?" + new URLSearchParams({ reason: cause.reason, about: cause.about, stage: cause.stage }) },
    cause.reason, cause.stage, numbers.format(cause.letters), numbers.format(cause.records),
  ]))
  const rest = causes.length - MOST_CAUSES
  at("rest").hidden = rest <= 0
  write(at("rest-link"), `${many(rest, "more cause", "more causes")}: see the dead letters`)
}

let answered = Date.now()

async function look() {
  try {
    const answer = await fetch("view", { signal: AbortSignal.timeout(PATIENCE_MS) })
    if (answer.status === 401) return location.reload()
    show(await answer.json())
    answered = Date.now()
  } catch {
    say("trouble", "This page gets no answer", [`The figures are from ${clock.format(answered)}. Nothing is lost: see whether the worker runs.`])
  }
  setTimeout(look, document.hidden ? HIDDEN_MS : HUNGRY_MS)
}

look()
