// What a generator handler yields, while it runs: node stream.mjs input.json, on an endpoint of such workers.
// Each answer has the chunks that nobody has read yet; Hearth waits some seconds for one. The last has a final status.
import { call, check, hasEnded, readJson } from "./hearth.mjs"

let job = await call("POST", "run", { input: readJson() })
while (!hasEnded(job)) {
  job = await call("GET", `stream/${job.id}`)
  for (const chunk of job.stream) console.log(JSON.stringify(chunk.output))
}
check(job)
