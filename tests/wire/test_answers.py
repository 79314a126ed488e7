"""What nobody foresaw is a 500 in the one shape of errors, and a line in the log that says where, without a token."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from jobs.wire.answers import json_app


async def broken(request: Request) -> Response:
    raise RuntimeError("nobody foresaw this")


@pytest.fixture
def client() -> TestClient:
    routes = [Route("/{endpoint}/run", broken, methods=["POST"]), Route("/worker/{token}/started", broken)]
    outer = Starlette(routes=[Mount("/v2", json_app([*routes[:1]])), Mount("/hooks", json_app([*routes[1:]]))])
    return TestClient(outer, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/v2/comfyui/run", "POST /v2/{endpoint}/run {'endpoint': 'comfyui'} failed"),
        ("GET", "/hooks/worker/s3cr3t/started", "GET /hooks/worker/{token}/started {} failed"),
    ],
)
def test_a_request_that_breaks_is_logged_by_its_route(
    client: TestClient, caplog: pytest.LogCaptureFixture, method: str, path: str, said: str
) -> None:
    answered = client.request(method, path)
    assert (answered.status_code, answered.json()["code"]) == (500, "internal")
    (line,) = [found for found in caplog.records if found.name == "hearth.web"]
    assert line.getMessage() == said
    assert line.exc_info
    assert "s3cr3t" not in line.getMessage()
