// What the examples beside this share: requests to Hearth with a tenant's key. Node 20 or newer, no packages.
import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"

export const { HEARTH_URL, HEARTH_ENDPOINT = "comfyui", HEARTH_API_KEY } = process.env
export const LATER = [429, 502, 503, 504] // over a limit, or Hearth is away for a moment: ask again, after Retry-After
const TRIES = 8
const LONGEST_MS = 60_000

// The answer of the endpoint. A request that is refused is an error with what Hearth says.
export async function call(method, path, body) {
  const headers = { Authorization: `Bearer ${HEARTH_API_KEY}`, "Idempotency-Key": randomUUID() } // no second job
  const request = { method, headers, body: body && JSON.stringify(body) }
  for (let tried = 1; ; tried++) {
    let fault
    let pause = 500 * 2 ** (tried - 1)
    try {
      const answer = await fetch(`${HEARTH_URL}/v2/${HEARTH_ENDPOINT}/${path}`, request)
      if (answer.ok) return await answer.json()
      fault = new Error(`HTTP ${answer.status}: ${await answer.text()}`)
      if (!LATER.includes(answer.status)) pause = Infinity
      else if (answer.headers.has("Retry-After")) pause = 1000 * Number(answer.headers.get("Retry-After"))
    } catch (error) {
      fault = new Error(`no answer from ${HEARTH_URL}: ${error.cause?.message ?? error.message}`)
    }
    if (tried === TRIES || pause > LONGEST_MS) throw fault
    console.error(`${fault.message}; asking again in ${pause / 1000} s`)
    await sleep(pause)
  }
}

export const readJson = () => JSON.parse(readFileSync(process.argv[2]))

// The job that the program is to run: a workflow in ComfyUI's API format, from the file that is named.
export const readInput = () => ({ input: { workflow: readJson() } })

export const hasEnded = (job) => !["IN_QUEUE", "IN_PROGRESS"].includes(job.status)

export function check(job) {
  if (job.status !== "COMPLETED") throw new Error(`${job.status}: ${job.error ?? ""}`)
}

// The files' URLs; or why there are none.
export function show(job) {
  check(job)
  for (const url of job.output.files) console.log(url)
}
