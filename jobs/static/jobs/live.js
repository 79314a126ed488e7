// A job's page while the job is queued or runs. It follows the job's event stream: place, progress, pictures and files
// are shown at once, a move has the page's own parts fetched anew, and the end the whole page.
const card = document.getElementById("job-live")
const GOES_ON = ["IN_QUEUE", "IN_PROGRESS"]
const FETCHED = ["#job_form fieldset", "#job-page"]
const FIRST_PAUSE_MS = 2000
const LONGEST_PAUSE_MS = 60000
const MOST_FILES = 60
let source = null
let timer = 0
let pause = FIRST_PAUSE_MS
let fetching = false
let stale = false
let lines = Number(card.dataset.lines) // of the timeline that the page shows

const part = (name) => card.querySelector(`[data-live=${name}]`)

function say(name, text) {
  part(name).textContent = text
  part(name).hidden = !text
}

// Opening it anew tells the whole life again, and leaves the page as it was.
function follow() {
  stop()
  source = new EventSource(card.dataset.events)
  source.onopen = () => {
    pause = FIRST_PAUSE_MS
    say("connection", "Live")
  }
  source.onerror = () => {
    say("connection", "Connection lost, trying again")
    if (source.readyState === EventSource.CLOSED) comeBack() // else the browser does, and says what it heard last
  }
  for (const [kind, tell] of Object.entries(TOLD)) {
    source.addEventListener(kind, (event) => tell(JSON.parse(event.data), parseInt(event.lastEventId)))
  }
}

function stop() {
  clearTimeout(timer)
  source?.close()
}

function comeBack() {
  timer = setTimeout(follow, pause)
  pause = Math.min(2 * pause, LONGEST_PAUSE_MS)
}

const TOLD = {
  state(move, line) {
    if (move.status === "IN_QUEUE") forgetAttempt()
    else say("waits", "")
    if (GOES_ON.includes(move.status) && line > lines) fetchParts()
  },
  queue(waits) {
    const begins = waits.estimate_s === null ? "" : ` It may begin in about ${waits.estimate_s} s.`
    say("waits", `Waits at place ${waits.position}: ${waits.text}${begins}`)
  },
  progress(now) {
    const known = typeof now === "object" && now !== null && typeof now.fraction === "number"
    part("progress").hidden = !known
    if (!known) return // a stock worker's own words, which stand below as JSON
    say("node", describeNode(now))
    say("steps", now.max > 1 ? `step ${now.value} of ${now.max}` : "")
    say("nodes", now.nodes_total ? `${now.nodes_done} of ${now.nodes_total} nodes done` : "")
    say("fraction", `${Math.floor(100 * now.fraction)} %`)
    part("bar").style.width = `${100 * now.fraction}%`
  },
  preview(picture) {
    part("preview").src = `data:${picture.content_type};base64,${picture.data}`
    part("preview").alt = `What node ${picture.node} has so far`
    part("preview").hidden = false
  },
  output({ assets }) {
    for (const asset of assets) {
      const isNew = !document.getElementById(`asset-${asset.id}`)
      if (isNew && part("outputs").childElementCount < MOST_FILES) part("outputs").append(shown(asset))
    }
    part("outputs").hidden = false
  },
  end() {
    stop()
    location.reload()
  },
}

function describeNode({ node, class_type, title }) {
  if (!node) return ""
  return `Node ${node}${class_type ? `, ${class_type}` : ""}${title ? ` “${title}”` : ""}`
}

function shown(asset) {
  const link = document.createElement("a")
  link.id = `asset-${asset.id}`
  link.className = "flex flex-col gap-1 max-w-48 text-xs"
  link.href = asset.url
  link.target = "_blank"
  link.rel = "noreferrer"
  if (asset.preview || asset.kind === "image") {
    const picture = document.createElement("img")
    picture.src = asset.preview || asset.url
    picture.alt = ""
    picture.className = "rounded-default"
    link.append(picture)
  }
  const name = document.createElement("span")
  name.className = "truncate"
  name.textContent = `${asset.name}, node ${asset.node}`
  link.append(name)
  return link
}

function forgetAttempt() {
  for (const name of ["progress", "preview", "outputs"]) part(name).hidden = true
  part("outputs").replaceChildren()
}

async function fetchParts() {
  stale = true
  if (fetching) return
  fetching = true
  try {
    while (stale) {
      stale = false
      const answer = await fetch(location.href)
      if (answer.redirected) location.reload() // to the login
      if (!answer.ok) break
      const page = new DOMParser().parseFromString(await answer.text(), "text/html")
      for (const where of FETCHED) {
        const [old, now] = [document.querySelector(where), page.querySelector(where)]
        if (old && now) old.replaceWith(now)
      }
      lines = Number(page.getElementById(card.id)?.dataset.lines ?? lines)
    }
  } catch (error) {
    console.warn("the page's parts could not be fetched:", error) // at the next move, or the end
  } finally {
    fetching = false
  }
}

// A browser has six connections to a server, for all of its tabs.
function followWhileSeen() {
  if (document.hidden) stop()
  else follow()
}

// What a dialog has done is said by the page that it leads to. Whoever fetched the page meanwhile would have it said there.
document.addEventListener("htmx:beforeRequest", ({ detail }) => {
  if (detail.requestConfig.verb === "post") stop()
})
document.addEventListener("htmx:afterRequest", ({ detail }) => {
  if (detail.requestConfig.verb === "post" && !detail.xhr.getResponseHeader("HX-Redirect")) follow()
})
document.addEventListener("visibilitychange", followWhileSeen)
followWhileSeen()
