// Submit, then ask now and then: node polling.mjs workflow.json. The id may be kept and asked about elsewhere.
import { setTimeout as sleep } from "node:timers/promises"
import { call, hasEnded, readInput, show } from "./hearth.mjs"

const EVERY_MS = 1000

let job = await call("POST", "run", readInput())
while (!hasEnded(job)) {
  await sleep(EVERY_MS)
  job = await call("GET", `status/${job.id}`)
  console.error(job.queue ? `${job.status}, place ${job.queue.position}: ${job.queue.text}` : job.status)
}
show(job)
