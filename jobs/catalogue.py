"""The node catalogues that workers report, kept once for each that differs, and what a workflow is held against now.

Each web process keeps those in use compiled; it learns of new ones every RECHECK_S, by their hashes.
"""

import gzip
import hashlib
import json
import logging
import threading
import zlib
from collections.abc import Collection
from dataclasses import dataclass

from django.db import transaction

from accounts import sql
from accounts.errors import Refused, bad_request
from jobs.graph.check import Graph, check
from jobs.graph.classes import Catalogue, Malformed
from jobs.graph.faults import Fault, Verdict
from jobs.wire.references import TakesFiles
from jobs.wire.submission import Judge, model_hash
from jobs.workers import Poller
from worker.kinds import is_model

log = logging.getLogger("hearth.catalogue")
MAX_BYTES, MAX_PACKED_BYTES = 32 * 1024**2, 8 * 1024**2
RECENT_S = 300


def offer(worker: Poller, sha256: str) -> bool:
    """This worker's ComfyUI has that catalogue. False: it is not known here, send it."""
    with transaction.atomic():
        known = "SELECT id FROM jobs_catalogue WHERE endpoint_id = %s AND sha256 = %s FOR KEY SHARE"
        row = sql.first(known, [worker.endpoint_id, sha256])
        if row is None:
            return False
        _has(worker, row[0])
    refresh()
    return True


KEEP = """
INSERT INTO jobs_catalogue (endpoint_id, sha256, body) VALUES (%s, %s, %s)
    ON CONFLICT (endpoint_id, sha256) DO UPDATE SET sha256 = excluded.sha256
RETURNING id"""


def keep(worker: Poller, packed: bytes) -> None:
    """This worker's ComfyUI has this catalogue: JSON, gzip. Raises Refused: 400, 413."""
    body = _unpacked(packed)
    _compiled(body)
    sha256 = hashlib.sha256(body).hexdigest()
    with transaction.atomic():
        _has(worker, sql.one(KEEP, [worker.endpoint_id, sha256, packed])[0])
    log.info("worker %s reports the node catalogue %s, %d bytes", worker.name, sha256[:12], len(body))
    refresh()


def classes_in(packed: bytes) -> int:
    """How many node classes a kept catalogue has."""
    return len(json.loads(gzip.decompress(packed)))


def models_in(packed: bytes) -> dict[int, str]:
    """The model files that a kept catalogue's inputs offer, by the hash that jobs and workers have of them."""
    found, todo = set(), [json.loads(gzip.decompress(packed))]
    while todo:
        value = todo.pop()
        if isinstance(value, dict | list):
            todo += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and is_model(value):
            found.add(value)
    return {model_hash(name): name for name in found}


def _has(worker: Poller, catalogue_id: int) -> None:
    sql.run("UPDATE jobs_worker SET catalogue_id = %s WHERE id = %s", [catalogue_id, worker.worker_id])


def _unpacked(packed: bytes) -> bytes:
    """One whole gzip stream, at most MAX_BYTES long when unpacked."""
    unzip = zlib.decompressobj(wbits=31)
    try:
        body = unzip.decompress(packed, MAX_BYTES + 1)
    except zlib.error as error:
        raise bad_request(f"The body is not gzip: {error}.", "invalid_catalogue") from error
    if len(body) > MAX_BYTES:
        raise Refused(413, "too_large", f"The node catalogue has more than {MAX_BYTES} bytes.")
    if not unzip.eof or unzip.unused_data:
        raise bad_request("The body is not one whole gzip stream.", "invalid_catalogue")
    return body


def _compiled(body: bytes) -> Catalogue:
    try:
        return Catalogue(json.loads(body))  # ComfyUI writes Infinity and lone surrogates, which orjson refuses
    except (Malformed, RecursionError, ValueError) as error:
        raise bad_request(f"The body is no node catalogue: {error}.", "invalid_catalogue") from error


# A worker that takes jobs and has reported nothing may be able to do anything.
IN_USE = """
WITH worker AS (
    SELECT endpoint_id, catalogue_id,
           greatest(take_at, stop_at, ping_at) > clock_timestamp() - %(recent)s * interval '1 s' AS recent
      FROM jobs_worker WHERE catalogue_id IS NOT NULL OR take_at IS NOT NULL
)
SELECT e.name, array_remove(array_agg(DISTINCT c.sha256) FILTER (WHERE recent), NULL),
       array_remove(array_agg(DISTINCT c.sha256), NULL), coalesce(bool_or(recent AND c.id IS NULL), false)
  FROM worker w JOIN jobs_endpoint e ON e.id = w.endpoint_id LEFT JOIN jobs_catalogue c ON c.id = w.catalogue_id
 WHERE e.dialect <> 'raw'
 GROUP BY e.name"""
# Who would run an endpoint's jobs while none of its own workers is there.
OTHERS = """
SELECT e.name, array_agg(t.name), bool_or(t.backend <> 'fleet') FROM jobs_overflow o
  JOIN jobs_endpoint e ON e.id = o.endpoint_id JOIN jobs_endpoint t ON t.id = o.to_id
 WHERE o.unhealthy GROUP BY e.name"""
BODY = "SELECT body FROM jobs_catalogue WHERE sha256 = %s LIMIT 1"


@dataclass(frozen=True)
class _InUse:
    """endpoints: by name, the hashes of the catalogues of its workers: of those seen lately, if there are any; else of
    all, and of those who would run its jobs instead."""

    endpoints: dict[str, list[str]]
    compiled: dict[str, Catalogue]


_in_use = _InUse({}, {})
_refreshing = threading.Lock()


def refresh() -> None:
    """Learn which catalogues are in use now, and compile those that are new."""
    global _in_use
    with _refreshing:
        endpoints = _endpoints()
        wanted = {hash for hashes in endpoints.values() for hash in hashes}
        compiled = {hash: kept for hash in wanted if (kept := _in_use.compiled.get(hash) or _read(hash))}
        _in_use = _InUse(endpoints, compiled)


def _endpoints() -> dict[str, list[str]]:
    """By name, the hashes that a workflow is held against; an endpoint where anything may pass is left out."""
    found = sql.rows(IN_USE, {"recent": RECENT_S})
    recent = {name: set(seen or ()) for name, seen, *_ in found}
    anything = {name for name, *_, any_may in found if any_may}
    others = {name: (names, pushed) for name, names, pushed in sql.rows(OTHERS)}
    endpoints: dict[str, set[str]] = {}
    for name, _, known, _ in found:
        names, pushed = ([], False) if recent[name] else others.get(name, ([], False))
        if name not in anything and not pushed and not anything & set(names):
            endpoints[name] = recent[name] or set(known).union(*(recent.get(other, set()) for other in names))
    return {name: sorted(hashes) for name, hashes in endpoints.items() if hashes}


def _read(sha256: str) -> Catalogue | None:
    row = sql.first(BODY, [sha256])
    if row is None:
        return None
    try:
        return _compiled(_unpacked(bytes(row[0])))
    except Refused as error:  # kept by another version of Hearth: what it cannot judge passes
        log.error("the node catalogue %s cannot be used: %s", sha256[:12], error)
        return None


def _known(now: _InUse, endpoint: str) -> list[Catalogue]:
    return [found for hash in now.endpoints.get(endpoint, ()) if (found := now.compiled.get(hash))]


def of_endpoint(endpoint: str) -> list[Catalogue]:
    """Those in use there that this process knows."""
    return _known(_in_use, endpoint)


def judge(endpoint: str) -> Judge | None:
    """What holds a workflow against the endpoint's catalogues; None while there is nothing to hold it against."""
    now = _in_use
    catalogues = _known(now, endpoint)
    if not catalogues or len(catalogues) < len(now.endpoints[endpoint]):
        return None
    return lambda graph, brought: verdict(catalogues, graph, brought)


def takes_files(endpoint: str) -> TakesFiles:
    """What says whether an input of a node class names an uploaded file; None: no worker has told."""
    known = of_endpoint(endpoint)

    def told(node_class: str, name: str) -> bool | None:
        inputs = [found.classes[node_class].inputs for found in known if node_class in found.classes]
        return any(name in each and each[name].file for each in inputs) if inputs else None

    return told


def verdict(catalogues: Collection[Catalogue], graph: Graph, brought: Collection[str]) -> Verdict | None:
    """None if one of the catalogues lets the workflow pass; else the faults by the one that has the fewest."""
    found: list[list[Fault]] = []
    for catalogue in catalogues:
        faults = check(catalogue, graph, brought)
        if not faults:
            return None
        found.append(faults)
    fewest = min(found, key=len)
    everywhere = set.intersection(*({fault.key for fault in faults} for faults in found))
    return Verdict(graph, fewest, elsewhere={fault.key for fault in fewest} - everywhere)
