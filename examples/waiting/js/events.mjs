// Follow a job as it goes: node events.mjs workflow.json tells moves, place, progress and files as they come.
// A connection that breaks is made anew with the id of the last event and goes on there: nothing is lost or told twice.
import { setTimeout as sleep } from "node:timers/promises"
import { HEARTH_API_KEY, HEARTH_URL, LATER, call, readInput, show } from "./hearth.mjs"

const SILENCE_MS = 45_000 // something comes every 15 s at least

// Each event's name and data; the last is "end". A browser's EventSource does the same, but cannot send a key.
async function* events(job) {
  let lastId = ""
  let pause = 2000
  while (true) {
    const headers = { Authorization: `Bearer ${HEARTH_API_KEY}`, ...(lastId && { "Last-Event-ID": lastId }) }
    const silence = new AbortController()
    const url = `${HEARTH_URL}/api/v1/jobs/${job}/events`
    const answer = await fetch(url, { headers, signal: silence.signal }).catch(() => null)
    if (answer && !answer.ok && !LATER.includes(answer.status)) {
      throw new Error(`HTTP ${answer.status}: ${await answer.text()}`)
    }
    try {
      for await (const { id, event, data, retry } of answer?.ok ? parse(answer.body, silence) : []) {
        if (retry) pause = Number(retry)
        if (data === undefined) continue
        lastId = id
        yield [event, JSON.parse(data)]
        if (event === "end") return
      }
    } catch (error) {
      console.error(`connection lost (${error.message}), going on after event ${lastId}`)
    }
    await sleep(pause)
  }
}

// Server-Sent Events: lines `name: value` up to an empty one. What was cut off before that does not count.
async function* parse(body, silence) {
  let text = ""
  const decoder = new TextDecoder()
  let timer = setTimeout(() => silence.abort(), SILENCE_MS)
  try {
    for await (const bytes of body) {
      timer.refresh()
      text += decoder.decode(bytes, { stream: true })
      const blocks = text.split("\n\n")
      text = blocks.pop()
      for (const block of blocks) yield fieldsOf(block)
    }
  } finally {
    clearTimeout(timer)
  }
}

function fieldsOf(block) {
  const fields = {}
  for (const line of block.split("\n")) {
    const [, name, value] = line.match(/^([^:]*):? ?(.*)$/)
    fields[name] = name === "data" && "data" in fields ? `${fields.data}\n${value}` : value
  }
  return fields
}

function tell(kind, data) {
  if (kind === "state") console.error(data.event)
  else if (kind === "queue") console.error(`place ${data.position}, begins in ${data.estimate_s} s: ${data.text}`)
  else if (kind === "progress" && data.fraction !== undefined) {
    const percent = Math.round(100 * data.fraction)
    console.error(`${percent} % ${data.title || data.class_type}: ${data.value} of ${data.max}`)
  } else if (kind === "output") for (const { name } of data.assets) console.error(`ready: ${name}`)
}

const { id } = await call("POST", "run", readInput())
for await (const [kind, data] of events(id)) {
  tell(kind, data)
  if (kind === "end") show(data)
}
