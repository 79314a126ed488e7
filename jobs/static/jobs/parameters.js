// The table of a stored workflow's parameters, above the text field that has them as JSON. The field is what is saved:
// the table writes it, and reads it when somebody edits it.
const NUMBERS = ["min", "max", "step", "multiple", "max_length"]
const LINES = ["paths", "choices"]
const OF_TYPE = {
  string: ["default", "max_length"],
  integer: ["default", "min", "max", "step", "multiple"],
  number: ["default", "min", "max", "step"],
  boolean: ["default"],
  choice: ["default", "choices"],
  file: ["default"],
  seed: ["min", "max"],
}
const COLUMNS = [
  ["name", "Name"],
  ["type", "Type"],
  ["paths", "Paths, one a line"],
  ["required", "Required"],
  ["default", "Default (empty: the graph's)"],
  ["min", "Min"],
  ["max", "Max"],
  ["step", "Step"],
  ["multiple", "Multiple of"],
  ["max_length", "Longest"],
  ["choices", "Choices, one a line"],
  ["title", "Title"],
  ["description", "Description"],
]

window.addEventListener("DOMContentLoaded", () => {
  const field = document.getElementById("id_parameters")
  if (field) new Table(field)
})

class Table {
  constructor(field) {
    this.field = field
    this.rows = document.createElement("tbody")
    this.said = document.createElement("p")
    this.said.setAttribute("role", "status")
    const head = document.createElement("tr")
    for (const [, title] of COLUMNS) head.append(made("th", { textContent: title, className: "px-1 text-left text-xs" }))
    const table = made("table", { id: "parameters-table" })
    table.append(made("thead"), this.rows)
    table.tHead.append(head)
    const scrolled = made("div", { className: "overflow-x-auto mb-2" })
    scrolled.style.contain = "inline-size" // as wide as the page, however wide the table is
    scrolled.append(table)
    const buttons = made("div", { className: "flex flex-row gap-4 mb-2" })
    buttons.append(
      button("Add a parameter", () => this.add({ type: "string" })),
      button("Propose from the workflow", () => this.propose()),
      this.said,
    )
    field.before(scrolled, buttons)
    field.addEventListener("change", () => this.read())
    this.read()
  }

  // The field into the table. What is no list of objects stays for the server to refuse.
  read() {
    let given
    try {
      given = JSON.parse(this.field.value || "[]")
    } catch {
      return this.say("The parameters are no valid JSON.")
    }
    if (!Array.isArray(given)) return this.say("The parameters are no list.")
    this.rows.replaceChildren()
    for (const one of given) if (one && typeof one === "object") this.add(one, false)
    this.say("")
  }

  write() {
    const all = [...this.rows.children].map((row) => row.parameter())
    this.field.value = JSON.stringify(all, null, 2)
  }

  add(given, written = true) {
    const row = document.createElement("tr")
    const cells = Object.fromEntries(COLUMNS.map(([name]) => [name, this.cell(name, given)]))
    for (const [name, title] of COLUMNS) {
      cells[name].setAttribute("aria-label", title)
      cells[name].dataset.field = name
      const cell = made("td", { className: "p-1 align-top" })
      cell.append(cells[name])
      row.append(cell)
    }
    const remove = button("Remove", () => {
      row.remove()
      this.write()
    })
    row.append(made("td"))
    row.lastChild.append(remove)
    row.parameter = () => told(cells, given)
    const fit = () => {
      const known = OF_TYPE[cells.type.value] || []
      for (const name of ["default", ...NUMBERS, "choices"]) cells[name].disabled = !known.includes(name)
    }
    row.addEventListener("input", () => {
      fit()
      this.write()
    })
    fit()
    this.rows.append(row)
    if (written) this.write()
  }

  cell(name, given) {
    const value = given[name]
    const look = this.field.className
    if (name === "type") {
      const select = made("select", { className: look })
      for (const type of this.field.dataset.types.split(" ")) select.append(new Option(type, type, false, type === value))
      return select
    }
    if (name === "required") return made("input", { type: "checkbox", checked: value === true })
    if (LINES.includes(name)) {
      const lines = made("textarea", { className: look, rows: 2, value: Array.isArray(value) ? value.join("\n") : "" })
      lines.style.minWidth = "14rem"
      return lines
    }
    const text = made("input", { type: "text", className: look, value: value === undefined || value === null ? "" : String(value) })
    text.style.minWidth = NUMBERS.includes(name) ? "5rem" : "10rem"
    return text
  }

  async propose() {
    const asked = new URLSearchParams()
    for (const name of ["graph", "tenant", "workflow"]) {
      asked.set(name, document.getElementById(`id_${name}`)?.value || "")
    }
    asked.set("csrfmiddlewaretoken", document.querySelector("[name=csrfmiddlewaretoken]").value)
    this.say("…")
    const answer = await fetch(this.field.dataset.propose, { method: "POST", body: asked })
    const told = await answer.json().catch(() => ({ error: `The server answers ${answer.status}.` }))
    if (told.error) return this.say(told.error)
    const taken = [...this.rows.children].map((row) => row.parameter())
    const paths = new Set(taken.flatMap((one) => one.paths))
    const names = new Set(taken.map((one) => one.name))
    const found = told.parameters.filter((one) => !one.paths.some((path) => paths.has(path)) && !names.has(one.name))
    for (const one of found) this.add(one)
    this.say(found.length ? `Proposed: ${found.length}. Remove what jobs are not to set.` : "Nothing more to propose.")
  }

  say(text) {
    this.said.textContent = text
  }
}

// A row as JSON has it. What is no number stays text, for the server to name.
function told(cells, given) {
  const type = cells.type.value
  const one = { name: cells.name.value, type, paths: lines(cells.paths), required: cells.required.checked }
  for (const name of ["title", "description"]) if (cells[name].value) one[name] = cells[name].value
  const known = OF_TYPE[type] || []
  for (const name of NUMBERS) {
    if (known.includes(name) && cells[name].value.trim()) one[name] = number(cells[name].value)
  }
  if (known.includes("choices")) {
    const isNumeric = given.choices?.length && given.choices.every((choice) => typeof choice === "number")
    one.choices = lines(cells.choices).map((choice) => (isNumeric ? number(choice) : choice))
  }
  const text = cells.default.value
  const wasEmpty = given.default === "" && text === ""
  if (known.includes("default") && !one.required && (text || wasEmpty)) one.default = typed(type, text, one.choices)
  return one
}

function typed(type, text, choices) {
  if (type === "integer" || type === "number") return number(text)
  if (type === "boolean") return { true: true, false: false }[text.trim()] ?? text
  if (type === "choice" && choices.includes(Number(text))) return Number(text)
  return text
}

function number(text) {
  const value = Number(text)
  return text.trim() && Number.isFinite(value) ? value : text
}

function lines(area) {
  return area.value.split("\n").filter((line) => line.trim())
}

function made(tag, about = {}) {
  return Object.assign(document.createElement(tag), about)
}

function button(text, press) {
  const pressed = made("button", { type: "button", textContent: text, className: "font-semibold text-link whitespace-nowrap" })
  pressed.addEventListener("click", press)
  return pressed
}
