"""/api/schema/: an OpenAPI document without warnings, of every route that clients call, which answers keep to."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.db.models.functions import Now
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from jsonschema import Draft4Validator

from jobs.api.urls import urlpatterns
from jobs.models import Delivery, DeliveryTry
from jobs.news import Done, done
from jobs.wire import again, export, news, runpod
from tests.api.v1 import V1
from tests.cast import attempt_of
from tests.wire.api import Api, finish
from tests.workflows.graphs import PARAMETERS, TEXT_TO_IMAGE


@pytest.fixture(scope="module")
def document() -> Any:
    with GENERATOR_STATS.silence():
        GENERATOR_STATS.reset()
        made = SchemaGenerator().get_schema(request=None, public=True)
        assert not GENERATOR_STATS, "warnings"
    return made


def shape(path: str) -> str:
    """Without the names of its variables."""
    parts = path.replace("<str:", "{").replace("<uuid:", "{").replace(">", "}").split("/")
    return "/".join("{}" if part.startswith("{") else part for part in parts)


def test_it_is_valid_openapi(document: Any) -> None:
    validate_schema(document)


def test_it_has_every_route_of_clients(document: Any) -> None:
    told = {(shape(path), method) for path, methods in document["paths"].items() for method in methods}
    wire = [
        ("/v2" * (route in runpod.ROUTES) + route.path, route)
        for route in (*runpod.ROUTES, *news.ROUTES, *again.ROUTES, *export.ROUTES)
    ]
    served = {
        (shape(path), method.lower()) for path, route in wire for method in route.methods or () if method != "HEAD"
    }
    for pattern in urlpatterns:
        if str(pattern.pattern):
            view = pattern.callback.view_class
            methods = [method for method in ("get", "post", "patch", "delete") if hasattr(view, method)]
            served |= {(shape(f"/api/v1/{pattern.pattern}"), method) for method in methods}
    assert {one for one in served if one not in told} == set()
    assert {one for one in told if one not in served} == set()


def test_it_is_served_to_everybody_with_a_page_that_shows_it(http: httpx.Client, document: Any) -> None:
    served = http.get("/api/schema/").json()
    assert set(served["paths"]) == set(document["paths"])
    page = http.get("/api/docs/")
    assert (page.status_code, "swagger-ui" in page.text) == (200, True)
    (script,) = {part.split('"')[0] for part in page.text.split('src="') if "swagger-ui-bundle" in part}
    assert http.get(script).status_code == 200, "it comes from this Hearth"


def json_bodies(document: Any) -> Iterator[tuple[str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            told = {"sent": operation.get("requestBody", {}), **operation["responses"]}
            for status, body in told.items():
                if media := body.get("content", {}).get("application/json"):
                    yield f"{method.upper()} {path}, {status}", media


def test_every_body_has_an_example_which_keeps_to_its_schema(document: Any) -> None:
    bodies = dict(json_bodies(document))
    assert len(bodies) > 200
    for where, media in bodies.items():
        schema = nullable({**media["schema"], "components": document["components"]}, closed=False)
        given = [each["value"] for each in media.get("examples", {}).values()] or [media["example"]]
        faults = [error.message for each in given for error in Draft4Validator(schema).iter_errors(each)]
        assert not faults, f"{where}: {faults}"
    told = bodies["GET /api/v1/buckets/{name}, 200"]["example"]
    assert (told["name"], told["prefix"], told["works"], told["fault"]) == ("prod", "hearth", True, None)


class Told:
    """Calls, whose answers are held to the document."""

    def __init__(self, document: Any, v1: V1) -> None:
        self.document, self.v1 = document, v1

    def __call__(self, method: str, path: str, named: str = "", **content: Any) -> Any:
        """`named`: the path as the document has it, if it has variables."""
        answered = self.v1.call(method, path, **content)
        operation = self.document["paths"][f"/api/v1/{named or path}"][method.lower()]
        told = operation["responses"][str(answered.status_code)]
        if "content" not in told:
            assert answered.content == b""
            return None
        schema = {**told["content"]["application/json"]["schema"], "components": self.document["components"]}
        Draft4Validator(nullable(schema)).validate(answered.json())
        return answered.json()


def nullable(schema: Any, *, closed: bool = True) -> Any:
    """OpenAPI 3.0's `nullable` in JSON Schema's words, and no field that is not told of, if `closed`."""
    if isinstance(schema, list):
        return [nullable(one, closed=closed) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: nullable(value, closed=closed) for name, value in schema.items()}
    if closed and "properties" in made and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return {"anyOf": [made, {"type": "null"}]} if made.pop("nullable", False) else made


@pytest.fixture
def told(document: Any, acme: Api) -> Told:
    key = acme.client.new_key(scopes=["run", "read", "manage"])
    return Told(document, V1.of(acme.http, acme.client).by(f"Bearer {key}"))


def test_answers_about_jobs_keep_to_it(told: Told, acme: Api) -> None:
    queued, ended = acme.run(), acme.run()
    told("GET", f"jobs/{queued}", "jobs/{job}")
    claimed = acme.take()
    told("GET", f"jobs/{queued}", "jobs/{job}")
    assert done(acme.place.endpoint.pk, "w1", attempt_of(claimed), Done(error=b'"x"'))
    told("GET", f"jobs/{queued}", "jobs/{job}", params={"input": "true"})
    told("POST", f"jobs/{queued}/run-again", "jobs/{job}/run-again", json={"input": 2, "metadata": {"a": 1}})
    told("POST", f"jobs/{queued}/run-again", "jobs/{job}/run-again", json={"inputs": 2})
    told("POST", f"jobs/{queued}/retry", "jobs/{job}/retry")
    told("POST", f"jobs/{queued}/cancel", "jobs/{job}/cancel")
    told("POST", f"jobs/{queued}/retry", "jobs/{job}/retry")
    finish(acme, acme.take(), {"n": 1})
    told("GET", f"jobs/{ended}", "jobs/{job}")
    assert len(told("GET", "jobs")["results"]) == 3
    told("GET", "jobs", params={"status": "x"})
    told("GET", "jobs", params={"limit": 1})
    told("GET", "usage", params={"month": "2026-11"})
    told("GET", "usage", params={"month": "2026-11", "daily": "true"})
    told("DELETE", f"jobs/{ended}", "jobs/{job}")
    told("GET", f"jobs/{ended}", "jobs/{job}")


def test_answers_about_files_keep_to_it(told: Told) -> None:
    about = {"name": "a", "bytes": 1, "sha256": "0" * 64}
    made = told("POST", "assets", json=about)
    told("POST", f"assets/{made['id']}/complete", "assets/{asset}/complete")
    asset = told("POST", "assets", content=b"abc", headers={"Content-Type": "image/png"})["id"]
    told("GET", f"assets/{asset}", "assets/{asset}")
    told("GET", "assets")
    for _ in range(2):
        told("DELETE", f"assets/{asset}", "assets/{asset}")
    told("POST", "assets", content=b"{", headers={"Content-Type": "application/json"})


def test_answers_about_buckets_keep_to_it(told: Told) -> None:
    where = {"name": "b", "endpoint_url": "http://127.0.0.1:9", "s3_bucket": "b", "access_key_id": "A"}
    told("POST", "buckets", json=where | {"secret_access_key": "s"})
    told("POST", "buckets", json=where | {"secret_access_key": "s"})
    told("PATCH", "buckets/b", "buckets/{name}", json={"s3_bucket": "c", "url_hours": 5})
    assert not told("POST", "buckets/b/verify", "buckets/{name}/verify")["works"]
    told("GET", "buckets/b", "buckets/{name}")
    told("GET", "buckets")
    told("DELETE", "buckets/b", "buckets/{name}")
    told("DELETE", "buckets/b", "buckets/{name}")


def test_answers_about_stored_workflows_keep_to_it(told: Told, own_acme: Api) -> None:
    own = told.v1.by(f"Bearer {own_acme.client.new_key(scopes=['read', 'manage'])}")
    told = Told(told.document, own)
    given = {"name": "portrait", "workflow": TEXT_TO_IMAGE, "parameters": PARAMETERS}
    told("POST", "workflows", json=given)
    told("POST", "workflows", json={**given, "parameters": [{}]})
    told("POST", "workflows/propose", json={"workflow": TEXT_TO_IMAGE})
    told("GET", "workflows")
    told("GET", "workflows/portrait", "workflows/{name}")
    told("PATCH", "workflows/portrait", "workflows/{name}", json={"title": "Portraits"})
    told("POST", "workflows/portrait/versions", "workflows/{name}/versions", json=given)
    told("GET", "workflows/portrait/versions", "workflows/{name}/versions")
    told("GET", "workflows/portrait/versions/1", "workflows/{name}/versions/{number}")
    told("GET", "workflows/portrait/schema", "workflows/{name}/schema")
    job = own_acme.run({"workflow": "portrait", "params": {"prompt": "a dog"}})
    assert told("GET", f"jobs/{job}", "jobs/{job}")["workflow"] == "portrait@2"
    told("DELETE", "workflows/portrait", "workflows/{name}")
    told("GET", "workflows/portrait", "workflows/{name}")


def test_answers_about_webhooks_and_deliveries_keep_to_it(told: Told) -> None:
    webhook = told("POST", "webhooks", json={"url": "https://hooks.example.com/"})["id"]
    told("POST", "webhooks", json={"url": "http://hooks.example.com/"})
    told("PATCH", f"webhooks/{webhook}", "webhooks/{webhook}", json={"kinds": ["failed"]})
    told("GET", f"webhooks/{webhook}", "webhooks/{webhook}")
    told("GET", "webhooks")
    told("POST", "webhooks/secrets", json={})
    told("GET", "webhooks/secrets")
    sent = told("POST", f"webhooks/{webhook}/test", "webhooks/{webhook}/test")["id"]
    told("GET", f"deliveries/{sent}", "deliveries/{delivery}")
    told("POST", f"deliveries/{sent}/replay", "deliveries/{delivery}/replay")
    tenant = told.v1.client.tenant
    DeliveryTry.all_tenants.create(tenant=tenant, delivery=Delivery.objects.of(tenant).get(), ms=1, error="x")
    Delivery.objects.of(tenant).update(state="failed", next_at=None, ended_at=Now())
    told("GET", "deliveries")
    told("GET", f"deliveries/{sent}", "deliveries/{delivery}")
    told("POST", f"deliveries/{sent}/replay", "deliveries/{delivery}/replay")
    told("POST", "deliveries/replay", json={"failed_since": "2026-01-01"})
    told("DELETE", f"webhooks/{webhook}", "webhooks/{webhook}")
    told("DELETE", f"webhooks/{webhook}", "webhooks/{webhook}")


def test_answers_about_keys_and_the_tenant_keep_to_it(told: Told, acme: Api) -> None:
    prefix = told("POST", "keys", json={"scopes": ["read"], "cost_a_month": "1"})["prefix"]
    told("PATCH", f"keys/{prefix}", "keys/{prefix}", json={"name": "x"})
    told("POST", f"keys/{prefix}/roll", "keys/{prefix}/roll", json={})
    told("GET", "keys")
    told("DELETE", f"keys/{prefix}", "keys/{prefix}")
    told("GET", f"keys/{prefix}", "keys/{prefix}")
    told("POST", "keys", json={})
    told("PATCH", "me", json={"unused_key_days": 30})
    told("PATCH", "me", json={})
    for path in ("me", "endpoints"):
        told("GET", path)
    told("GET", f"endpoints/{acme.endpoint}", "endpoints/{name}")
    told("GET", "endpoints/none", "endpoints/{name}")
