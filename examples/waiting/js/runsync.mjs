// One request that is answered when the job has ended: node runsync.mjs workflow.json
import { call, hasEnded, readInput, show } from "./hearth.mjs"

const WAIT_MS = 60_000 // at most 300,000; proxies in between may allow less

let job = await call("POST", `runsync?wait=${WAIT_MS}`, readInput())
while (!hasEnded(job)) job = await call("GET", `status-sync/${job.id}?wait=${WAIT_MS}`) // it takes longer than that
show(job)
