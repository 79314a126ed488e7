"""`metadata` of a job: its client's own words, kept with it, told in lists and webhooks, and what jobs are found by."""

import json
from typing import Any

import pytest

from accounts import sql
from jobs.models import Metadata
from tests.api.test_history import listed
from tests.api.v1 import V1
from tests.wire.api import Api, check_refusal, finish, job_of

GOOD = {"customer": 42, "kind": "Größe “x”\n", "trial": False, "ratio": 0.5, "order.no-1_a": "42", "empty": ""}


def ran(acme: Api, **metadata: Any) -> str:
    return acme.run(metadata=metadata)


def test_it_is_told_as_it_was_given(acme: Api, v1: V1) -> None:
    job, plain = ran(acme, **GOOD), acme.run()
    assert v1.get(f"jobs/{job}")["metadata"] == GOOD
    assert [one["metadata"] for one in v1.get("jobs")["results"]] == [{}, GOOD]
    assert "metadata" not in acme.status(job)
    assert acme.take().job == job_of(job).uuid
    assert v1.get(f"jobs/{plain}")["metadata"] == {}


@pytest.mark.parametrize("none", [None, {}])
def test_none_is_none(acme: Api, v1: V1, none: Any) -> None:
    job = acme.run(metadata=none)
    assert v1.get(f"jobs/{job}")["metadata"] == {}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n", "42", 42),
        ("n", "42", "42"),
        ("n", "42", 42.0),
        ("n", "-0.25", -0.25),
        ("n", "true", True),
        ("n", "", ""),
        ("a.b-c_D9", "Größe & more=%", "Größe & more=%"),
        ("long", "ü" * 500, "ü" * 500),
    ],
)
def test_jobs_are_found_by_a_value_as_it_is_written(acme: Api, v1: V1, name: str, text: str, value: Any) -> None:
    job = ran(acme, **{name: value})
    ran(acme, **{name: "other"})
    ran(acme, other=value)
    assert listed(v1, **{f"metadata.{name}": text}) == [job]
    assert listed(v1, **{f"metadata.{name}": (text + "0")[-500:]}) == []


def test_several_entries_must_all_be_there_and_other_filters_hold_too(acme: Api, v1: V1) -> None:
    first = ran(acme, customer=42, kind="portrait")
    second = ran(acme, customer=42, kind="portrait", more=1)
    ran(acme, customer=42, kind="film")
    ran(acme, customer=7, kind="portrait")
    both = {"metadata.customer": "42", "metadata.kind": "portrait"}
    assert listed(v1, **both) == [second, first]
    finish(acme, acme.take())
    assert listed(v1, **both, status="COMPLETED") == [first]
    assert listed(v1, **{"metadata.kind": ["portrait", "film"]}) == []


def test_pages_of_what_was_found_follow_each_other(acme: Api, v1: V1) -> None:
    jobs = [ran(acme, customer=n % 2) for n in range(6)]
    page, seen = v1.get("jobs", limit=2, **{"metadata.customer": "1"}), []
    while True:
        seen += [job["id"] for job in page["results"]]
        if not page["next"]:
            break
        page = v1.get(page["next"].split("/api/v1/")[1])
    assert seen == jobs[1::2][::-1]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([1], "`metadata` must be an object, not a list"),
        ("x", "`metadata` must be an object, not a string"),
        ({"a": None}, "`metadata.a` must be text, a number, true or false, not null"),
        ({"a": {"b": 1}}, "`metadata.a` must be text, a number, true or false, not an object"),
        ({"a": [1]}, "`metadata.a` must be text"),
        ({"a": "x" * 501}, "`metadata.a` has 501 characters; at most 500"),
        ({"a": "x\0y"}, "`metadata.a` has a NUL"),
        ({"größe": 1}, "the name 'größe' must be 1 to 40"),
        ({"": 1}, "the name '' must be"),
        ({"a" * 41: 1}, "must be 1 to 40"),
        ({"a b": 1}, "the name 'a b' must be"),
        ({f"n{n}": 1 for n in range(21)}, "has 21 entries; at most 20"),
        ({f"n{n}": "x" * 490 for n in range(18)}, "bytes of names and values; at most 8192"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_name(acme: Api, given: Any, says: str) -> None:
    for call in ("run", "runsync"):
        error = check_refusal(acme.post(call, {"input": 1, "metadata": given}), 400, "invalid_metadata")["error"]
        assert says in error


def test_a_number_that_json_has_not_is_refused(acme: Api) -> None:
    for number in ("1e999", "NaN"):
        answered = acme.post("run", f'{{"input": 1, "metadata": {{"a": {number}}}}}'.encode())
        check_refusal(answered, 400)


@pytest.mark.parametrize("query", ["metadata.größe=1", "metadata.=1", "metadata.a=%00", f"metadata.a={'x' * 501}"])
def test_what_no_job_can_have_is_not_asked_for(v1: V1, query: str) -> None:
    v1.refused(400, "invalid_metadata", "GET", f"jobs?{query}")
    v1.refused(400, "invalid_metadata", "GET", "jobs?" + "&".join(f"metadata.n{n}=1" for n in range(21)))


def test_globex_finds_and_reads_nothing_by_acmes_words(acme: Api, globex: Api, v1: V1, stranger: V1) -> None:
    job = ran(acme, customer=42)
    own = ran(globex, customer=42)
    assert listed(stranger, **{"metadata.customer": "42"}) == [own]
    assert listed(v1, **{"metadata.customer": "42"}) == [job]
    stranger.refused(404, "not_found", "GET", f"jobs/{job}")


def test_the_same_request_with_other_metadata_is_another(acme: Api) -> None:
    once = acme.once("a")
    first = once.post("run", {"input": 1, "metadata": {"a": 1}}).json()["id"]
    assert once.post("run", {"input": 1, "metadata": {"a": 1}}).json()["id"] == first
    check_refusal(once.post("run", {"input": 1, "metadata": {"a": 2}}), 422, "idempotency_key_reused")
    assert Metadata.objects.of(acme.client.tenant).count() == 1


def test_it_outlives_what_retention_takes_and_goes_with_the_job(acme: Api, v1: V1) -> None:
    job = ran(acme, customer=42)
    finish(acme, acme.take())
    sql.run("UPDATE jobs_job SET payload_gone_at = '2026-01-02T03:04:05Z' WHERE id = %s", [job_of(job).uuid])
    assert listed(v1, **{"metadata.customer": "42"}) == [job]
    assert v1.call("DELETE", f"jobs/{job}").status_code == 202
    assert not Metadata.objects.of(acme.client.tenant).exists()


def test_a_refused_request_keeps_none(own_acme: Api) -> None:
    check_refusal(own_acme.post("run", {"input": {}, "metadata": {"a": 1}}), 400, "invalid_workflow")
    assert not Metadata.objects.of(own_acme.client.tenant).exists()


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**300])
def test_a_whole_number_that_webhooks_and_exports_could_not_write_is_refused(acme: Api, number: int) -> None:
    answered = acme.post("run", {"input": 1, "metadata": {"order": number}})
    assert "send it as text" in check_refusal(answered, 400, "invalid_metadata")["error"]


def test_what_no_client_gives_is_still_read(acme: Api, v1: V1) -> None:
    """The largest and the smallest number that JSON's readers agree on."""
    given = {"most": 1.7976931348623157e308, "least": 5e-324, "whole": 2**64 - 1, "negative": -(2**63)}
    job = ran(acme, **given)
    assert v1.get(f"jobs/{job}")["metadata"] == json.loads(json.dumps(given))
    exported = v1.call("GET", "jobs/export", params={"format": "jsonl"})
    assert json.loads(exported.text.splitlines()[0])["metadata"] == json.loads(json.dumps(given))
