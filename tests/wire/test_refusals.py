"""Bad input: each is refused in the one shape, nothing is stored, and nothing is a 500."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import ApiKey
from tests.cast import WORKFLOW, new_client, new_place, unique
from tests.wire.api import CALLS, Api, check_refusal, nothing_stored

NO_KEYS = {
    "none": "",
    "bearer alone": "Bearer",
    "another scheme": "Basic YWNtZTpzZWNyZXQ=",
    "no key of ours": "Bearer rpa_0123456789",
    "too short": "Bearer hth_0123456789ab_short",
    "latin-1": "Bearer h\xe9",
    "unknown": "Bearer hth_0123456789ab_" + "a" * 43,
    "unknown worker key": "Bearer hwk_0123456789ab_" + "a" * 43,
}


def path_of(path: str, job: str) -> str:
    return path.format(job=job)


def refused_everywhere(api: Api, job: str, status: int, code: str) -> list[str]:
    """Every operation refuses and stores nothing; the messages."""
    with nothing_stored():
        answers = [
            api.call(method, path_of(path, job), {"input": 1} if method == "POST" else None) for method, path in CALLS
        ]
    return [check_refusal(answered, status, code)["error"] for answered in answers]


@pytest.mark.parametrize("authorization", NO_KEYS.values(), ids=NO_KEYS.keys())
def test_what_is_no_key_is_401_on_every_route(acme: Api, authorization: str) -> None:
    job = acme.run()
    refused_everywhere(acme.by(authorization.encode("latin-1")), job, 401, "unauthorized")
    answered = acme.by(authorization.encode("latin-1")).get("health")
    assert answered.headers["WWW-Authenticate"] == "Bearer"


def test_no_authorization_header_at_all_is_401(acme: Api) -> None:
    for method, path in CALLS:
        url = f"/v2/{acme.endpoint}/{path_of(path, 'x')}"
        check_refusal(acme.http.request(method, url, content=b'{"input": 1}'), 401, "unauthorized")


def test_the_right_prefix_with_a_wrong_secret_is_401(acme: Api, globex: Api) -> None:
    job = acme.run()
    prefix, secret = acme.client.api_key[:17], globex.client.api_key[17:]
    errors = refused_everywhere(acme.by(prefix + secret), job, 401, "unauthorized")
    assert set(errors) == {"Unknown API key."}


def test_a_revoked_key_is_401(acme: Api) -> None:
    job, text = acme.run(), acme.client.new_key()
    second = acme.by(f"Bearer {text}")
    assert second.get("health").status_code == 200
    ApiKey.all_tenants.get(prefix=text[4:16]).revoke()
    refused_everywhere(second, job, 401, "unauthorized")


def test_an_expired_key_is_401_and_one_that_will_expire_is_good(acme: Api) -> None:
    now = timezone.now()
    job = acme.run()
    soon = acme.by(acme.client.new_key(expires_at=now + timedelta(minutes=5)))
    assert soon.get("health").status_code == 200
    past = acme.by(acme.client.new_key(expires_at=now - timedelta(seconds=1)))
    refused_everywhere(past, job, 401, "unauthorized")


@pytest.mark.parametrize(("scopes", "refused"), [(["run"], "read"), (["read"], "run"), ([], "run read")])
def test_a_key_without_the_scope_is_403(acme: Api, scopes: list[str], refused: str) -> None:
    job, api = acme.run(), acme.by(acme.client.new_key(scopes=scopes))
    for method, path in CALLS:
        needed = "read" if path.startswith(("status", "stream", "health", "requests")) else "run"
        with nothing_stored():
            if needed in refused:
                check_refusal(api.call(method, path_of(path, job), {"input": 1}), 403, "forbidden")
    if "run" in scopes:
        assert api.post("run", {"input": 1}).status_code == 200
    if "read" in scopes:
        assert api.status(job)["status"] == "IN_QUEUE"


def test_a_worker_key_is_no_api_key(acme: Api) -> None:
    job = acme.run()
    errors = refused_everywhere(acme.by(f"Bearer {acme.place.worker_key}"), job, 401, "unauthorized")
    assert all("worker key" in error for error in errors)


@pytest.mark.parametrize("path", ["job-done/w1/{job}", "job-stream/w1/{job}", "ping/w1"])
def test_an_api_key_is_no_worker_key(acme: Api, path: str) -> None:
    job = acme.run()
    method = "GET" if path.startswith("ping") else "POST"
    with nothing_stored():
        answered = acme.call(method, path_of(path, job), {"output": 1} if method == "POST" else None)
    assert "worker key" in check_refusal(answered, 401, "unauthorized")["error"]
    assert acme.status(job) == {"id": job, "status": "IN_QUEUE"}


@pytest.mark.parametrize("endpoint", ["no-such-endpoint", "a%00b", "%FF", "A" * 300, "%20", "'--"])
def test_an_unknown_endpoint_is_404(acme: Api, endpoint: str) -> None:
    errors = refused_everywhere(acme.at(endpoint), acme.run(), 404, "not_found")
    assert len(errors) == len(CALLS)


def test_an_endpoint_without_a_grant_is_404_just_as_an_unknown_one(acme: Api) -> None:
    theirs = new_client(new_place(), "globex").place.name
    errors = refused_everywhere(acme.at(theirs), acme.run(), 404, "not_found")
    unknown = unique("ep")
    assert [error.replace(theirs, unknown) for error in errors[:2]] == [
        acme.at(unknown).post(path, {"input": 1}).json()["error"] for path in ("run", "runsync")
    ]


@pytest.mark.parametrize(
    "job",
    [
        "01234567-89ab-7def-8123-456789abcdef-e1",
        "sync-01234567-89ab-7def-8123-456789abcdef-e1",
        "01234567-89AB-7DEF-8123-456789ABCDEF-e1",
        *("nope", "%00", "%FF", "1", "-e1", "a" * 3000, "01234567-89ab-7def-8123-456789abcdef", "'; DROP TABLE"),
    ],
)
def test_an_unknown_job_is_404(acme: Api, job: str) -> None:
    with nothing_stored():
        for method, path in CALLS[2:7]:
            check_refusal(acme.call(method, path_of(path, job)), 404, "not_found")


def test_an_attempts_id_is_no_jobs_id(acme: Api) -> None:
    job = acme.run()
    for path in ("status", "status-sync", "stream"):
        check_refusal(acme.get(f"{path}/{job}-a2"), 404, "not_found")


def test_who_asks_is_looked_at_before_what_is_asked(acme: Api) -> None:
    unknown = acme.by(NO_KEYS["unknown"])
    for api, status in ((unknown, 401), (acme.by(acme.client.new_key(scopes=[])), 403), (acme.at("nope"), 404)):
        for path in ("run", "runsync", "cancel/nope"):
            check_refusal(api.post(path, b"no json"), status)
        check_refusal(api.post("runsync", {"input": 1}, wait="soon"), status)


DEEP = b"[" * 10_000 + b"]" * 10_000
NO_JSON = {
    "empty": b"",
    "space": b" \n ",
    "text": b"hello",
    "open": b'{"input": 1',
    "open string": b'{"input": "a',
    "trailing comma": b'{"input": 1,}',
    "two objects": b'{"input": 1} {"input": 2}',
    "something after": b'{"input": 1} x',
    "no name": b"{1: 2}",
    "single quotes": b"{'input': 1}",
    "comment": b'{"input": 1} // yes',
    "10,000 deep": b'{"input": ' + DEEP + b"}",
    "10,000 deep beside": b'{"input": 1, "policy": ' + DEEP + b"}",
    "501 deep": b'{"input": ' + b"[" * 500 + b"]" * 500 + b"}",
    "a NUL byte": b'{"input": "\0"}',
    "NUL after it": b'{"input": 1}\0',
    "NaN": b'{"input": NaN}',
    "Infinity": b'{"input": {"a": [-Infinity]}}',
    "infinite number": b'{"input": 1e999}',
    "5,000 digits": b'{"input": ' + b"9" * 5_000 + b"}",
    "bad UTF-8": b'{"input": "\xff"}',
    "cut UTF-8": b'{"input": "\xc3"}',
    "UTF-8 surrogate": b'{"input": "\xed\xa0\x80"}',
    "lone surrogate": b'{"input": "\\ud800"}',
    "UTF-16": '{"input": 1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"input": 1}',
    "a form": b"input=1",
    "gzip": b"\x1f\x8b\x08\x00",
    **{f"not an object: {text}": text.encode() for text in ("[]", '[{"input": 1}]', '"input"', "1", "null", "true")},
}


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON.keys())
def test_what_is_no_json_object_is_400(acme: Api, body: bytes) -> None:
    with nothing_stored():
        for path in ("run", "runsync"):
            check_refusal(acme.post(path, body), 400, "invalid_json")


FOLDER = "hearth-" + "0" * 32
ELSEWHERE = {
    "a way up": {"image": "../../etc/passwd.png"},
    "a way up, annotated": {"image": "../output/a.png [output]"},
    "a way up by backslashes": {"audio": "..\\..\\a.wav"},
    "a way up in an input nobody knows": {"weights_of_mine": "../a"},
    "an absolute path": {"video": "/srv/a.mp4"},
    "a drive": {"file": "C:\\a.mp4"},
    "NUL": {"latent": "a\0.latent"},
    "the shared output folder": {"image": "a.png [output]"},
    "the shared temp folder": {"image": {"mask": "a.png [temp]"}},
    "another job's folder": {"text": f"{FOLDER}/a.png"},
    "1,000 deep": {"image": json.loads("[" * 900 + '"../a"' + "]" * 900)},
}


@pytest.mark.parametrize("inputs", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_a_name_that_leads_to_what_is_not_this_jobs_is_400(own_acme: Api, inputs: dict[str, object]) -> None:
    workflow = json.dumps({**WORKFLOW, "5": {"class_type": "LoadImage", "inputs": inputs}})
    with nothing_stored():
        said = check_refusal(own_acme.post("run", {"input": {"workflow": workflow}}), 400, "invalid_workflow")
    assert "node '5', input '" in said["error"]


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a\\b.png", f"{FOLDER}/a.png", "a\nb.png"])
@pytest.mark.parametrize("key", ["files", "images"])
def test_a_files_name_that_is_no_plain_path_is_400(own_acme: Api, key: str, name: str) -> None:
    for files in ([{"name": name, "image": "YQ=="}], {name: "YQ=="}):
        with nothing_stored():
            check_refusal(own_acme.post("run", {"input": {"workflow": WORKFLOW, key: files}}), 400, "invalid_workflow")


def test_text_with_dots_and_slashes_and_names_of_the_jobs_own_files_pass(own_acme: Api) -> None:
    inputs = {"image": "a.png [temp]", "text": "a cat .. and/or ../a dog, https://example.com/a/../b"}
    files = [{"name": "a.png", "image": "YQ=="}]
    node = {"class_type": "LoadImage", "inputs": inputs}
    answered = own_acme.post("run", {"input": {"workflow": {**WORKFLOW, "5": node}, "images": files}})
    assert answered.status_code == 200


def test_a_large_body_of_bad_json_is_400_too(acme: Api) -> None:
    """It is parsed in a thread, and after the key."""
    with nothing_stored():
        check_refusal(acme.post("run", b'{"input": "' + b"a" * 300_000 + b'", }'), 400, "invalid_json")
        check_refusal(acme.at("nope").post("run", b"a" * 300_000), 404, "not_found")
        check_refusal(acme.by(NO_KEYS["unknown"]).post("run", b"a" * 300_000), 401, "unauthorized")


@pytest.mark.parametrize("body", [{}, {"Input": 1}, {"policy": {}}, {"workflow": WORKFLOW}, {"inputs": {}}])
def test_a_body_without_input_is_400(acme: Api, own_acme: Api, body: object) -> None:
    with nothing_stored():
        for api in (acme, own_acme):
            check_refusal(api.post("run", body), 400, "no_input")


NO_WORKFLOWS = {
    "input null": None,
    "input a list": [WORKFLOW],
    "input a string": "a cat",
    "input empty": {},
    "not there": {"prompt": WORKFLOW},
    "null": {"workflow": None},
    "a number": {"workflow": 5},
    "a list": {"workflow": [WORKFLOW]},
    "empty": {"workflow": {}},
    "UI format": {"workflow": {"nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4}},
    "UI format, empty": {"workflow": {"nodes": [], "links": []}},
    "a node that is a list": {"workflow": {"1": []}},
    "a node without class_type": {"workflow": {"1": {"inputs": {}}}},
    "a class_type that is a number": {"workflow": {"1": {"class_type": 5, "inputs": {}}}},
    "one good node and a bad one": {"workflow": {**WORKFLOW, "3": None}},
    "wrapped": {"workflow": {"prompt": WORKFLOW}},
    "a text that is no JSON": {"workflow": "{"},
    "a text that is a list": {"workflow": "[]"},
    "a text that is empty": {"workflow": ""},
    "a text 10,000 deep": {"workflow": DEEP.decode()},
    "an empty object as text": {"workflow": "{}"},
    "an odd node's name": {"workflow": {"\0\x1b[31m" + "a" * 10_000: 1}},
}


@pytest.mark.parametrize("given", NO_WORKFLOWS.values(), ids=NO_WORKFLOWS.keys())
def test_a_wrong_workflow_is_400_and_dialect_raw_takes_it(own_acme: Api, acme: Api, given: object) -> None:
    with nothing_stored():
        for path in ("run", "runsync"):
            error = check_refusal(own_acme.post(path, {"input": given}), 400, "invalid_workflow")["error"]
            assert "`input" in error
            assert len(error) < 300
    assert acme.post("run", {"input": given}).status_code == 200


def test_a_workflow_may_come_as_text(own_acme: Api) -> None:
    assert own_acme.post("run", {"input": {"workflow": json.dumps(WORKFLOW)}}).status_code == 200


def test_a_ui_workflow_is_told_what_to_do_instead(own_acme: Api) -> None:
    answered = own_acme.post("run", {"input": NO_WORKFLOWS["UI format"]})
    assert "Export (API)" in answered.json()["error"]


@pytest.mark.parametrize(
    "wait", ["", "0", "999", "300001", "-1", "1e4", "5000.5", "soon", "٣٠٠٠", "000100000999", "9" * 5_000, "\0"]
)
def test_a_wait_out_of_bounds_is_400(acme: Api, wait: str) -> None:
    with nothing_stored():
        check_refusal(acme.post("runsync", {"input": 1}, wait=wait), 400, "invalid_wait")


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "no/such; type=\xe9"])
def test_the_content_type_does_not_matter(acme: Api, content_type: str) -> None:
    headers = {"Authorization": acme.authorization, "Content-Type": content_type.encode("latin-1")}
    url = f"/v2/{acme.endpoint}/run"
    assert acme.http.post(url, content=b'{"input": 1}', headers=headers).status_code == 200


def test_500_levels_are_taken_and_handed_over_as_they_came(acme: Api) -> None:
    deep = b"[" * 499 + b"]" * 499
    assert acme.post("run", b'{"input": ' + deep + b"}").status_code == 200
    assert acme.client.place.worker().take_one().input == deep


@pytest.mark.parametrize("wish", [{"output_format": "gif"}, {"output_quality": 101}, {"strip_metadata": 1}])
def test_a_wish_for_pictures_that_makes_no_sense_is_refused(own_acme: Api, wish: dict[str, object]) -> None:
    with nothing_stored():
        error = check_refusal(own_acme.post("run", {"input": {"workflow": WORKFLOW, **wish}}), 400, "invalid_workflow")
    assert next(iter(wish)) in error["error"]
