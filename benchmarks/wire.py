"""`run` and `status` under load, against the floor and against runpod's own local server."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from uuid import UUID

from accounts.keys import given_key
from accounts.models import ApiKey
from benchmarks.bench import Bench
from benchmarks.load import Load, Plan, put_load, request
from benchmarks.measure import Figure, Row, interleaved, ratios
from benchmarks.processes import apart, cpu_s, environment, server
from benchmarks.tenants import Place, forget_jobs, new_place
from hearth.local.seaweed import free_ports
from jobs import creation, news, uploads, workers
from jobs.ids import AttemptId, JobId, public_id
from jobs.wire.bodies import parse_request
from jobs.wire.submission import parse_submission
from jobs.workflows import stored
from worker.wire import Asset, Upload

BODY_BYTES = 5 * 1024
MANY_TENANTS = 50
SCALE = {"upscale_method": "nearest-exact", "width": 64, "height": 64, "crop": "disabled"}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server: its port, and the process whose CPU it costs."""

    port: int
    pid: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    load: Load
    cpu_ms: float

    def json(self) -> dict[str, Any]:
        return asdict(self.load) | {"cpu_ms_a_request": self.cpu_ms}


def run(bench: Bench) -> Row:
    """POST /run of a workflow of 5 KB, sent whole and by its name, to an endpoint without workers; the tables are empty
    before each measure."""
    place = new_place(MANY_TENANTS)
    body = workflow_body()
    many = [request("POST", f"{place.path}/run", api_key, body) for api_key in place.api_keys]
    named = [request("POST", f"{place.path}/run", place.api_keys[0], by_name(place))]
    bare = bench.kept(floor)
    with runpods_server(bench) as runpods:
        hearth = Target(port=bench.instance.port, pid=bench.instance.pids()["web"])
        found = interleaved(
            bench.rounds,
            {
                "floor, 1 tenant": lambda: _run(bench, bare, many[:1]),
                "Hearth, 1 tenant": lambda: _run(bench, hearth, many[:1]),
                "Hearth, by name": lambda: _run(bench, hearth, named),
                "floor, 50 tenants": lambda: _run(bench, bare, many),
                "Hearth, 50 tenants": lambda: _run(bench, hearth, many),
                "runpod's local server": lambda: _run(bench, runpods, [request("POST", "/run", "", body)]),
            },
        )
    rates = _rates(found)
    own = rates["Hearth, 50 tenants"]
    over = [
        Figure(name="Hearth / floor, 1 tenant", unit="×", rounds=_over_floor(rates, "1 tenant")),
        Figure(name="Hearth / floor, 50 tenants", unit="×", rounds=_over_floor(rates, "50 tenants"), at_least=0.6),
        Figure(name="by name / whole", unit="×", rounds=ratios(rates["Hearth, by name"], rates["Hearth, 1 tenant"])),
        Figure(name="Hearth / runpod's", unit="×", rounds=ratios(own, rates["runpod's local server"]), at_least=3.0),
    ]
    return Row(figures=[*_answers(found), *over], raw=_raw(found))


def status(bench: Bench) -> Row:
    """GET /status of queued jobs, and of a completed one with a file, whose URL Hearth signs."""
    place, many = new_place(), new_place(MANY_TENANTS)
    asked = {
        "completed": [_status_request(place.api_keys[0], place, _completed(place))],
        "queued": [_status_request(place.api_keys[0], place, _queued(place, place.api_keys[0]))],
        "queued, 50 tenants": [_status_request(key, many, _queued(many, key)) for key in many.api_keys],
    }
    targets = {"floor": bench.kept(floor), "Hearth": Target(port=bench.instance.port, pid=bench.instance.pids()["web"])}
    found = interleaved(
        bench.rounds,
        {
            f"{name}, {what}": partial(_load, bench, target, requests)
            for what, requests in asked.items()
            for name, target in targets.items()
        },
    )
    rates = _rates(found)
    over = [
        Figure(name=f"Hearth / floor, {what}", unit="×", rounds=_over_floor(rates, what), at_least=0.5)
        for what in asked
    ]
    return Row(figures=[*_answers(found), *over], raw=_raw(found))


def workflow_body() -> bytes:
    """A chain of real nodes, of 5 KB as JSON."""
    graph: dict[str, Any] = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}}
    }
    while len(body := json.dumps({"input": {"workflow": graph}})) < BODY_BYTES - 200:
        last = str(len(graph))
        graph[str(len(graph) + 1)] = {"class_type": "ImageScale", "inputs": {"image": [last, 0], **SCALE}}
    last = str(len(graph))
    graph["save"] = {"class_type": "SaveImage", "inputs": {"images": [last, 0], "filename_prefix": "bench"}}
    body = json.dumps({"input": {"workflow": graph}})
    return body.ljust(BODY_BYTES).encode()


def by_name(place: Place) -> bytes:
    """The same for the first tenant, which has stored it with two parameters."""
    workflow = parse_request(workflow_body()).value("input")["workflow"]
    parameters = [
        {"name": "width", "type": "integer", "paths": ["2.inputs.width", "3.inputs.width"], "min": 16, "max": 2048},
        {"name": "prefix", "type": "string", "paths": ["save.inputs.filename_prefix"], "max_length": 100},
    ]
    tenant = ApiKey.all_tenants.get(prefix=given_key(place.api_keys[0]).prefix).tenant_id
    stored.create(tenant, "bench", workflow, parameters, "the benchmarks")
    return json.dumps({"input": {"workflow": "bench", "params": {"width": 128, "prefix": "x"}}}).encode()


@contextmanager
def floor(bench: Bench) -> Iterator[Target]:
    port = free_ports(1)[0]
    granian = ["granian", "--interface", "rsgi", "--workers", "1", "--loop", "uvloop", "--no-ws", "--port", str(port)]
    env = {**environment(), "HEARTH_HOME": str(bench.instance.home.path), "DJANGO_SETTINGS_MODULE": "hearth.settings"}
    with server(bench.instance.home, "floor", [*granian, "benchmarks.floor:app"], env, port) as child:
        yield Target(port=port, pid=child.pid)


@contextmanager
def runpods_server(bench: Bench) -> Iterator[Target]:
    """It keeps jobs in memory only. HOME holds no ~/.runpod."""
    port, home = free_ports(1)[0], bench.instance.home
    argv = ["benchmarks.trivial", "--rp_serve_api", "--rp_api_port", str(port), "--rp_api_host", "127.0.0.1"]
    env = {**environment(), "HOME": str(home.folder("runpods"))}
    with server(home, "runpods", argv, env, port) as child:
        yield Target(port=port, pid=child.pid)


def _run(bench: Bench, target: Target, requests: Sequence[str]) -> Measured:
    forget_jobs()
    return _load(bench, target, requests)


def _load(bench: Bench, target: Target, requests: Sequence[str]) -> Measured:
    with apart(target.pid, bench.instance.processes()):
        before = cpu_s(target.pid)
        load = put_load(Plan(port=target.port, requests=requests, seconds=bench.seconds, warm_s=bench.warm_s))
        return Measured(load=load, cpu_ms=(cpu_s(target.pid) - before) * 1000 / load.answers_in_all)


Found = dict[str, list[Measured]]


def _rates(found: Found) -> dict[str, list[float]]:
    return {name: [one.load.answers_a_second for one in rounds] for name, rounds in found.items()}


def _over_floor(rates: dict[str, list[float]], what: str) -> list[float]:
    return ratios(rates[f"Hearth, {what}"], rates[f"floor, {what}"])


def _answers(found: Found) -> list[Figure]:
    return [Figure(name=name, unit="/s", rounds=_rates(found)[name], note=_note(found[name])) for name in found]


def _note(rounds: list[Measured]) -> str:
    def middle(of: Callable[[Measured], float]) -> float:
        return Figure(name="", unit="", rounds=[of(one) for one in rounds]).value

    p50, p99 = middle(lambda one: one.load.p50_ms), middle(lambda one: one.load.p99_ms)
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, CPU {middle(lambda one: one.cpu_ms):.2f} ms"


def _raw(found: Found) -> dict[str, Any]:
    return {name: [one.json() for one in rounds] for name, rounds in found.items()}


def _queued(place: Place, api_key: str) -> JobId:
    submission = parse_submission(parse_request(workflow_body()), sync=False)
    return creation.create(given_key(api_key), place.endpoint.name, submission).job


def _completed(place: Place) -> JobId:
    """A job that a worker took and ended with one file."""
    _queued(place, place.api_keys[0])
    worker_key = given_key(place.worker_key)
    poller = workers.begin_take(worker_key, place.endpoint.name, "bench", idle=False)
    (taken,) = workers.take(poller, 1).jobs
    attempt = AttemptId(taken.job, taken.number)
    about = {"name": "bench_00001_.png", "content_type": "image/png", "bytes": 100, "sha256": "0" * 64}
    news.started(attempt)
    (slot,) = uploads.slots(attempt, [Upload(**about, node="save", kind="image")]) or ()
    uploads.mark_stored([UUID(slot.id)])  # nobody downloads it
    asset = asdict(Asset(id=slot.id, key=slot.key, subfolder="", **about, node="save", kind="image"))
    output = {"files": [slot.key], "datas": {}, "assets": [asset]}
    raw = json.dumps(output).encode()
    news.done(poller.endpoint_id, poller.name, attempt, news.Done(output=raw, output_value=output))
    return JobId(taken.job, taken.sync)


def _status_request(api_key: str, place: Place, job: JobId) -> str:
    return request("GET", f"{place.path}/status/{public_id(job.uuid, job.sync)}", api_key)
