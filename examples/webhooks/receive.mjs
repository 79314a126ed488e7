// Receives Hearth's webhooks and believes only what is signed. Node 18 or newer, without any package:
//
//     WEBHOOK_SECRET=whsec_… PORT=9000 node receive.mjs

import { createHmac, timingSafeEqual } from "node:crypto"
import { createServer } from "node:http"

const KEY = Buffer.from(process.env.WEBHOOK_SECRET.replace(/^whsec_/, ""), "base64")
const TOLERANCE_S = 300 // so that what somebody has recorded is not believed for ever
const seen = new Set() // a message may come twice: keep the ids where they outlive this process

/** The message, if it is Hearth's; throws if not. body: the bytes as they came, since written anew they may differ. */
function verify(headers, body) {
  const { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures } = headers
  if (!id || !timestamp || !signatures) throw new Error("it is not signed")
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= TOLERANCE_S)) throw new Error("it is too old, or too new")
  const expected = createHmac("sha256", KEY).update(`${id}.${timestamp}.`).update(body).digest()
  const holds = signatures.split(" ").some((signature) => {
    const [version, text = ""] = signature.split(",")
    const given = Buffer.from(text, "base64")
    return version === "v1" && given.length === expected.length && timingSafeEqual(given, expected)
  })
  if (!holds) throw new Error("no signature matches") // there are two while your secret is rolled
  return JSON.parse(body)
}

createServer(async (request, response) => {
  const parts = []
  for await (const part of request) parts.push(part)
  try {
    const job = verify(request.headers, Buffer.concat(parts))
    const id = request.headers["webhook-id"]
    if (!seen.has(id)) console.log(job.id, job.status) // your work; if it is long, keep the message and do it later
    seen.add(id)
    response.end("thanks")
  } catch (error) {
    response.writeHead(400).end(`Not verified: ${error.message}`)
  }
}).listen(Number(process.env.PORT ?? 9000), "127.0.0.1")
