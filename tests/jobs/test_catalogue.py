"""Node catalogues: each kept once, used while workers of the endpoint have it, and then forgotten."""

import gzip
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from accounts import sql
from accounts.errors import Refused
from jobs import catalogue, sweep, workers
from jobs.graph.faults import Verdict
from jobs.models import Catalogue, Overflow, Worker
from tests.cast import WORKFLOW, Place, new_place
from tests.graph.test_rules import info

SAVE = info(output=[], output_node=True, images=["IMAGE"], filename_prefix=["STRING"])
IMAGE = info(width=["INT", {"min": 1}], height=["INT"], batch_size=["INT"], color=["INT"])
LOADER = info("nodes", output=[], output_node=True, model=[["a.safetensors", "b.safetensors"]])


def nodes(**more: Any) -> dict[str, Any]:
    return {"EmptyImage": IMAGE, "SaveImage": SAVE, **more}


def packed(classes: Any) -> bytes:
    return gzip.compress(json.dumps(classes).encode())


def poller(place: Place, name: str = "w1") -> workers.Poller:
    return workers.seen(place.key, place.name, name, "ping_at")


def report(place: Place, classes: Any, name: str = "w1") -> Worker:
    catalogue.keep(poller(place, name), packed(classes))
    return Worker.objects.get(endpoint=place.endpoint, name=name)


def verdict(place: Place, **loader: Any) -> Verdict | None:
    """Of the common workflow, or of one with a loader of these inputs."""
    judge = catalogue.judge(place.name)
    graph = {"1": {"class_type": "Loader", "inputs": loader}} if loader else WORKFLOW
    return judge(graph, ()) if judge else None


def age(place: Place, name: str, minutes: int) -> None:
    """The worker was last seen so long ago."""
    moved = ", ".join(f"{at} = {at} - interval '1 minute' * %(minutes)s" for at in ("take_at", "ping_at"))
    where = "endpoint_id = %(endpoint)s AND name = %(name)s"
    sql.run(
        f"UPDATE jobs_worker SET {moved} WHERE {where}",
        {"minutes": minutes, "endpoint": place.endpoint.pk, "name": name},
    )
    catalogue.refresh()


def test_a_catalogue_is_kept_once_and_named_by_each_worker_that_has_it(own_place: Place) -> None:
    body = json.dumps(nodes()).encode()
    sha256 = hashlib.sha256(body).hexdigest()
    assert not catalogue.offer(poller(own_place), sha256)
    catalogue.keep(poller(own_place), gzip.compress(body))
    catalogue.keep(poller(own_place, "w2"), gzip.compress(body, 1))
    assert catalogue.offer(poller(own_place, "w3"), sha256)
    (kept,) = Catalogue.objects.filter(endpoint=own_place.endpoint)
    assert kept.sha256 == sha256
    assert set(kept.workers.values_list("name", flat=True)) == {"w1", "w2", "w3"}


def test_a_catalogue_of_another_endpoint_is_not_known(own_place: Place) -> None:
    report(own_place, nodes())
    other = new_place("hearth")
    assert not catalogue.offer(poller(other), Catalogue.objects.get(endpoint=own_place.endpoint).sha256)


def test_a_workflow_is_held_against_the_catalogue_of_its_endpoint(own_place: Place) -> None:
    assert verdict(own_place, model="c.safetensors") is None
    report(own_place, nodes(Loader=LOADER))
    assert verdict(own_place) is None
    assert verdict(own_place, model="a.safetensors") is None
    assert verdict(own_place, model="c.safetensors") is not None
    assert verdict(new_place("hearth"), model="c.safetensors") is None


def test_an_endpoint_of_dialect_raw_holds_nothing_against_it(place: Place) -> None:
    report(place, nodes())
    assert verdict(place, model="c.safetensors") is None


def test_a_new_catalogue_of_a_worker_takes_the_place_of_its_old_one(own_place: Place) -> None:
    report(own_place, nodes(Loader=LOADER))
    report(own_place, nodes())
    assert verdict(own_place, model="a.safetensors") is not None


def test_what_one_of_the_workers_would_take_passes(own_place: Place) -> None:
    report(own_place, nodes(Loader=info(output=[], output_node=True, model=[["x.safetensors"]])))
    report(own_place, nodes(Loader=LOADER), "w2")
    assert verdict(own_place, model="x.safetensors") is None
    assert verdict(own_place, model="a.safetensors") is None
    refused = verdict(own_place, model="y.safetensors")
    assert refused
    assert "is on no worker of this endpoint" in refused.told()[0]


def test_of_several_the_catalogue_with_the_fewest_faults_tells_and_says_so(own_place: Place) -> None:
    two = info(output=[], output_node=True, model=[["x.safetensors"]], vae=[["v.safetensors"]])
    report(own_place, nodes(Loader=two))
    two = info(output=[], output_node=True, model=[["y.safetensors"]], vae=[["w.safetensors"]], steps=["INT"])
    report(own_place, nodes(Loader=two), "w2")
    refused = verdict(own_place, model="x.safetensors", vae="w.safetensors")
    assert refused
    said, told = refused.told()
    assert said.startswith('Node 1 (Loader): model "w.safetensors" is not on the worker of this endpoint that has most')
    assert [entry["input"] for entry in told["1"]] == ["vae"]


def test_a_worker_that_takes_jobs_and_reported_nothing_lets_all_pass(own_place: Place) -> None:
    report(own_place, nodes())
    own_place.worker("w2").ping()  # it may still wait for its ComfyUI
    catalogue.refresh()
    assert verdict(own_place, model="c.safetensors") is not None
    own_place.worker("w2").poll()
    catalogue.refresh()
    assert verdict(own_place, model="c.safetensors") is None


def test_workers_that_are_gone_count_only_while_there_is_no_other(own_place: Place) -> None:
    report(own_place, nodes(Loader=LOADER), "old")
    own_place.worker("older").poll()
    for name in ("old", "older"):
        age(own_place, name, 6)
    assert verdict(own_place, model="a.safetensors") is None
    assert verdict(own_place, model="c.safetensors") is not None
    report(own_place, nodes(), "new")
    assert verdict(own_place, model="a.safetensors") is not None


def test_a_catalogue_that_no_worker_has_is_forgotten(own_place: Place) -> None:
    worker = report(own_place, nodes())
    sweep.forget_gone()
    assert Catalogue.objects.filter(endpoint=own_place.endpoint).count() == 1
    report(own_place, nodes(Loader=LOADER))
    sweep.forget_gone()
    (kept,) = Catalogue.objects.filter(endpoint=own_place.endpoint)
    worker.refresh_from_db()
    assert worker.catalogue_id == kept.pk


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no gzip", 400),
        (gzip.compress(b"{}")[:-4], 400),
        (gzip.compress(b"{}") + b"more", 400),
        (gzip.compress(b"no json"), 400),
        (gzip.compress(b"\xff"), 400),
        (gzip.compress(b"[" * 100_000), 400),
        (packed({}), 400),
        (packed({"X": None}), 400),
        (gzip.compress(b" " * (catalogue.MAX_BYTES + 1)), 413),
    ],
    ids=["no gzip", "cut", "more", "no json", "no text", "too deep", "empty", "no class", "too large"],
)
def test_what_is_no_catalogue_is_refused_and_changes_nothing(own_place: Place, body: bytes, status: int) -> None:
    worker = report(own_place, nodes())
    with pytest.raises(Refused) as refused:
        catalogue.keep(poller(own_place), body)
    assert refused.value.status == status
    assert Worker.objects.get(pk=worker.pk).catalogue_id == worker.catalogue_id


def test_a_bomb_is_unpacked_no_further_than_it_is_read() -> None:
    bomb = gzip.compress(b" " * (256 * 1024**2), 1)
    assert len(bomb) < catalogue.MAX_PACKED_BYTES
    with pytest.raises(Refused, match="more than"):
        catalogue._unpacked(bomb)


def test_reports_and_the_sweeper_at_once_leave_every_worker_its_catalogue(own_place: Place) -> None:
    bodies = [json.dumps(nodes(**{f"Loader{n}": LOADER})).encode() for n in range(3)]
    hashes = [hashlib.sha256(body).hexdigest() for body in bodies]

    def reports(number: int) -> None:
        try:
            for turn in range(12):
                which = (number + turn) % 3
                if not catalogue.offer(poller(own_place, f"w{number}"), hashes[which]):
                    catalogue.keep(poller(own_place, f"w{number}"), gzip.compress(bodies[which]))
                sweep.forget_gone()
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(reports, range(6)))
    sweep.forget_gone()
    found = Worker.objects.filter(endpoint=own_place.endpoint).order_by("name")
    assert [worker.catalogue and hashes.index(worker.catalogue.sha256) for worker in found] == [2, 0, 1, 2, 0, 1]


def test_while_no_worker_is_there_a_workflow_may_be_for_those_it_overflows_to(own_place: Place) -> None:
    other = new_place("hearth")
    way = Overflow.objects.create(endpoint=own_place.endpoint, to=other.endpoint)
    report(own_place, nodes())
    report(other, nodes(Loader=LOADER))
    assert verdict(own_place, model="a.safetensors") is not None
    age(own_place, "w1", minutes=10)
    assert verdict(own_place) is None
    assert verdict(own_place, model="a.safetensors") is None
    assert verdict(own_place, model="c.safetensors") is not None
    way.delete()
    catalogue.refresh()
    assert verdict(own_place, model="a.safetensors") is not None


def test_what_cannot_be_known_of_an_overflow_passes(own_place: Place) -> None:
    other = new_place("hearth", backend="runpod", max_running=1)
    way = Overflow.objects.create(endpoint=own_place.endpoint, to=other.endpoint)
    report(own_place, nodes())
    age(own_place, "w1", minutes=10)
    assert catalogue.judge(own_place.name) is None
    way.delete()
