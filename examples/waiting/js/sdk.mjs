// RunPod's own SDK (npm install runpod-sdk), with its base URL changed: node sdk.mjs workflow.json
import { readFileSync } from "node:fs"
import runpodSdk from "runpod-sdk"

const { HEARTH_URL, HEARTH_ENDPOINT = "comfyui", HEARTH_API_KEY } = process.env
const endpoint = runpodSdk(HEARTH_API_KEY, { baseUrl: `${HEARTH_URL}/v2` }).endpoint(HEARTH_ENDPOINT)

const { id } = await endpoint.run({ input: { workflow: JSON.parse(readFileSync(process.argv[2])) } })
let job = await endpoint.statusSync(id)
while (!job.completed) job = await endpoint.statusSync(id)
if (!job.succeeded) throw new Error(`${job.status}: ${job.error ?? ""}`)
for (const url of job.output.files) console.log(url)
