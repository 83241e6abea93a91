// The dead letters: a hundred at a time, so that any number of them leaves the page as quick as it is.

const REFRESH_MS = 5000
const at = id => document.getElementById(id)
const numbers = new Intl.NumberFormat()
const when = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" })
const form = at("filters"), dialog = at("letter"), body = at("rows")
const fields = ["reason", "about", "stage", "kind", "state", "file", "failed"]
let start = 0, asked = 0, timer = 0

function make(name, text, className) {
  const made = document.createElement(name)
  if (text !== undefined) made.textContent = text
  if (className) made.className = className
  return made
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text
}

function wanted() {
  const query = new URLSearchParams()
  for (const name of fields) {
    const field = form.elements[name]
    const value = (field.dataset.chosen ?? field.value).trim()  // its choices may not be there yet
    if (value && name !== "failed") query.set(name, value)
  }
  const [bound, ago] = form.elements.failed.value.split("=")
  if (ago) query.set(bound, ago)
  if (start) query.set("start", start)
  return query
}

function offer(name, values) {
  const select = form.elements[name], chosen = select.dataset.chosen ?? select.value
  const options = [...new Set([...values, chosen])].filter(Boolean).sort()
  if ([...select.options].slice(1).map(option => option.value).join("\n") === options.join("\n")) return
  select.replaceChildren(select.options[0], ...options.map(value => {
    const option = make("option", value)
    option.value = value
    return option
  }))
  select.value = chosen
  delete select.dataset.chosen
}

function cellsOf(letter) {
  const why = make("td", undefined, "why"), button = make("button", letter.reason, "plain")
  button.type = "button"
  button.setAttribute("aria-haspopup", "dialog")
  button.addEventListener("click", () => open(letter.key))
  why.append(button, make("p", letter.what))
  const place = letter.files.join(", ") + (letter.number ? ` : ${letter.number}` : "")
  return [
    make("td", letter.last_failure ? when.format(new Date(letter.last_failure)) : "–"),
    why,
    make("td", place || "–", "where"),
    make("td", letter.kind === "batch" ? `batch of ${numbers.format(letter.records)}` : letter.record_type || letter.kind),
    make("td", letter.state),
  ]
}

function show(list) {
  const keep = new Map([...body.rows].map(row => [row.dataset.mark, row]))
  body.replaceChildren(...list.rows.map(letter => {
    const mark = `${letter.key} ${letter.last_failure} ${letter.state}`
    if (keep.has(mark)) return keep.get(mark)
    const row = make("tr")
    row.dataset.mark = mark
    row.append(...cellsOf(letter))
    // On a phone the rows are boxes, which a browser takes for no table.
    row.setAttribute("role", "row")
    for (const cell of row.cells) cell.setAttribute("role", "cell")
    return row
  }))
  at("table").hidden = !list.rows.length
  const end = list.start + list.rows.length
  const all = list.total === list.open ? "" : ` of ${numbers.format(list.open)}`
  write(at("count"), list.error ? `Kafka does not answer: ${list.error}`
    : list.reading && !list.total ? "The letters are being read …"
    : list.total ? `${numbers.format(list.total)}${all} open dead letters` + (list.forgotten ? `; ${numbers.format(list.forgotten)} older ones are not listed here` : "")
    : list.open ? "No open dead letter is like that." : "No dead letter is open.")
  at("paging").hidden = list.total <= list.rows.length && !list.start
  at("previous").disabled = !list.start
  at("next").disabled = end >= list.total
  write(at("place"), `${numbers.format(Math.min(list.start + 1, list.total))} to ${numbers.format(end)} of ${numbers.format(list.total)}`)
  offer("reason", list.causes.map(cause => cause.reason))
  offer("about", list.causes.map(cause => cause.about))
  offer("stage", list.causes.map(cause => cause.stage))
  offer("state", list.states)
}

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(20000) })
  if (answer.status === 401) location.reload()
  return [answer.ok, await answer.json()]
}

async function look() {
  clearTimeout(timer)
  const mine = ++asked, query = wanted()
  try {
    const [fine, told] = await ask(`list?${query}`)
    if (mine !== asked) return
    if (fine) show(told)
    else write(at("count"), told.error)
  } catch {
    if (mine === asked) write(at("count"), "This page gets no answer. Nothing is lost: see whether the worker runs.")
  }
  timer = setTimeout(look, document.hidden ? 10 * REFRESH_MS : body.rows.length ? REFRESH_MS : 1000)
}

function turn(to) {
  start = Math.max(0, to)
  remember()
  return look()
}

const leaf = pages => turn(start + 100 * pages).then(() => at("count").scrollIntoView({ block: "start" }))

function remember() {
  const query = wanted().toString()
  history.replaceState(null, "", (query ? "?" + query : location.pathname) + location.hash)
}

function recall() {
  const query = new URLSearchParams(location.search)
  for (const name of fields) {
    const value = query.get(name)
    if (!value || name === "failed") continue
    const field = form.elements[name]
    field.value = value
    if (field.value !== value) field.dataset.chosen = value
  }
  for (const bound of ["newer", "older"]) if (query.has(bound)) form.elements.failed.value = `${bound}=${query.get(bound)}`
  start = Number(query.get("start")) || 0
}

function defined(entries) {
  const list = make("dl")
  for (const [name, text] of Object.entries(entries)) list.append(make("dt", name), make("dd", text))
  return list
}

function rowsOf(letter) {
  const table = make("table"), head = table.createTHead().insertRow()
  table.createCaption().textContent = "The record, cell by cell"
  table.caption.className = "unseen"
  for (const title of ["Heading", "Field", "Value", "Rule that it breaks"]) {
    const cell = make("th", title)
    cell.scope = "col"
    head.append(cell)
  }
  const rows = table.createTBody()
  for (const cell of letter.cells) {
    const row = rows.insertRow(), heading = make("th", cell.heading || cell.field)
    heading.scope = "row"
    if (cell.rule) row.className = "fault"
    row.append(heading, make("td", cell.field), make("td", cell.value), make("td", cell.rule ? `✗ ${cell.rule}` : ""))
  }
  return table
}

function part(title, ...content) {
  return content.length ? [make("h3", title), ...content] : []
}

function tell(letter) {
  const faults = Object.entries(letter.faults).map(([field, rule]) => make("p", `✗ ${field ? field + ": " : ""}${rule}`, "bad"))
  const reasons = letter.cells.length || faults.length ? [] : letter.reasons.map(reason => make("p", `✗ ${reason.value ? reason.value + ": " : ""}${reason.rule}`, "bad"))
  at("shown").replaceChildren(
    ...faults, ...reasons,
    ...(letter.cells.length ? part("The record", rowsOf(letter)) : []),
    ...part("As it stood", make("pre", letter.original)),
    ...(letter.exchange ? part("The last exchange with Avstar", make("pre", JSON.stringify(letter.exchange, null, 2))) : []),
    ...(letter.traceback ? part("Traceback", make("pre", letter.traceback)) : []),
    ...part("What else is known", defined(letter.facts)),
    ...part("To send it again", make("pre", `spotstream dlq redrive ${letter.key.slice(0, 16)}`)),
  )
}

async function open(key) {
  history.replaceState(null, "", location.pathname + location.search + "#" + key)
  write(at("letter-title"), `Dead letter ${key.slice(0, 16)}…`)
  at("shown").replaceChildren(make("p", "Reading …"))
  if (!dialog.open) dialog.showModal()
  at("letter-title").focus()
  try {
    const [fine, told] = await ask(`letter?${new URLSearchParams({ key })}`)
    if (fine) tell(told)
    else at("shown").replaceChildren(make("p", told.error, "bad"))
  } catch {
    at("shown").replaceChildren(make("p", "No answer.", "bad"))
  }
}

dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search))
form.addEventListener("submit", event => { event.preventDefault(); turn(0) })
form.addEventListener("change", () => turn(0))
form.addEventListener("reset", () => setTimeout(() => turn(0)))
at("previous").addEventListener("click", () => leaf(-1))
at("next").addEventListener("click", () => leaf(1))
recall()
look()
if (/^#[0-9a-f]{64}$/.test(location.hash)) open(location.hash.slice(1))
