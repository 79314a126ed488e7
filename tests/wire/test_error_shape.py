"""One shape of errors for every route under /v2 and /hooks, for what they lack, and for what is not there."""

import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.routing import Route

from jobs.wire import fleet, hooks, news, runpod
from tests.cast import Place
from tests.wire.api import Api, check_refusal

KEYED = [*runpod.ROUTES, *fleet.ROUTES, *news.ROUTES]
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
NO_JOB = "01234567-89ab-7def-8123-456789abcdef-e1"
WRONG_KEYS = ("", "hth_0123456789ab_" + "a" * 43, "hwk_0123456789ab_" + "a" * 43)


def path_of(route: Route, endpoint: str) -> str:
    names = {"endpoint": endpoint, "job": NO_JOB, "attempt": NO_JOB, "worker": "w1", "token": "no-token"}
    prefix = "/hooks" if route in hooks.ROUTES else "" if route in news.ROUTES else "/v2"
    return prefix + route.path.format(**{name: names[name] for name in route.param_convertors})


def method_of(route: Route) -> str:
    return "POST" if "POST" in (route.methods or ()) else "GET"


def test_every_route_with_a_key_refuses_wrong_keys(http: httpx.Client, place: Place) -> None:
    def ask(route: Route, key: str) -> httpx.Response:
        url = path_of(route, place.name)
        return http.request(method_of(route), url, content=b'{"input": 1}', headers={"Authorization": key})

    every = [(route, key) for route in KEYED for key in WRONG_KEYS]
    with ThreadPoolExecutor(len(every)) as pool:  # a worker's wrong key is answered slowly
        for answered in pool.map(ask, *zip(*every, strict=True)):
            assert check_refusal(answered, 401, "unauthorized")
            assert answered.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("route", KEYED, ids=lambda route: route.path)
def test_every_route_with_a_key_refuses_other_methods(http: httpx.Client, place: Place, route: Route) -> None:
    url = path_of(route, place.name)
    for method in sorted(METHODS - set(route.methods or ())):
        answered = http.request(method, url)
        check_refusal(answered, 405, "method_not_allowed")
        assert set(answered.headers["Allow"].split(", ")) == route.methods


@pytest.mark.parametrize("route", hooks.ROUTES, ids=lambda route: route.path)
def test_every_hook_refuses_other_methods_and_unknown_tokens(http: httpx.Client, route: Route) -> None:
    url = path_of(route, "")
    check_refusal(http.request(method_of(route), url, content=b"{}"), 404, "not_found")
    for method in sorted(METHODS - set(route.methods or ())):
        check_refusal(http.request(method, url), 405, "method_not_allowed")


@pytest.mark.parametrize(
    "path",
    [
        *("/v2/", "/v2/ep", "/v2/ep/", "/v2/ep/runs", "/v2/ep/run/", "/v2/ep/status", "/v2/ep/status/", "/v2//run"),
        *("/v2/ep/status/a/b", "/v2/ep/status/a%2Fb", "/v2/ep/health/", "/v2/ep/%00", "/v2/%FF/%FF", "/v2/ep/RUN"),
        *("/v2/ep/runs%0A", "/v2/%0A/runs", "/hooks/%0A", "/v2/%0D%0A"),
        *("/hooks/", "/hooks/nope", "/hooks/worker/", "/hooks/worker/token", "/hooks/worker/token/started/"),
    ],
)
def test_an_unknown_path_under_a_wire_prefix_is_a_json_404(acme: Api, path: str) -> None:
    for method in ("GET", "POST"):
        answered = acme.http.request(method, path, headers={"Authorization": acme.authorization})
        assert "There is nothing at /" in check_refusal(answered, 404, "not_found")["error"]


@pytest.mark.parametrize("path", ["/", "/nope", "/v2x/ep/run", "/v2%0A", "/admin/%0A"])
def test_other_paths_are_djangos(http: httpx.Client, path: str) -> None:
    answered = http.get(path)
    assert answered.status_code in (302, 404)
    assert answered.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("host", [b"[", b"[::1", b"a b", b"\xff", b"evil.example.com:port"])
@pytest.mark.parametrize("path", [b"/v2/ep/nope", b"/v2/ep/health"])
def test_an_odd_host_header_is_no_500(http: httpx.Client, path: bytes, host: bytes) -> None:
    with socket.create_connection((http.base_url.host, http.base_url.port), timeout=10) as client:
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
        head = client.makefile("rb").readline()
    assert head.split()[1] in (b"400", b"401", b"404"), head


def test_every_route_that_names_a_job_refuses_another_tenants(acme: Api, globex: Api) -> None:
    job = acme.run()
    routes = [route for route in KEYED if "job" in route.param_convertors]
    assert len(routes) >= 3
    for route in routes:
        url = path_of(route, acme.endpoint).replace(NO_JOB, job)
        answered = globex.http.request(method_of(route), url, headers={"Authorization": globex.authorization})
        check_refusal(answered, 404, "not_found")
