// One call of RunPod's JS SDK: node calls.mjs '{"url", "key", "endpoint", "call", "args"}'. Its last line is JSON:
// {"result"} or {"error", "answer", "retry_after"}, and how many requests and seconds it took. Only the base URL is Hearth's.
const { url, key, endpoint, call, args } = JSON.parse(process.argv[2])
let requests = 0
const { fetch } = globalThis
globalThis.fetch = (...given) => {
  requests += 1
  return fetch(...given)
}
const { default: sdk } = await import("runpod-sdk")

async function collect(chunks) {
  const seen = []
  for await (const chunk of chunks) seen.push(chunk)
  return seen
}

const begun = Date.now()
let said
try {
  const found = sdk(key, { baseUrl: url }).endpoint(endpoint)[call](...args)
  said = { result: await (call === "stream" ? collect(found) : found) }
} catch (error) {
  const { data, headers } = error.response ?? {}
  said = { error: error.message, answer: data, retry_after: headers?.get("retry-after") }
}
console.log(JSON.stringify({ ...said, requests, seconds: (Date.now() - begun) / 1000 }))
