"""A job's page follows the job, in a real browser over a real web process; its stream is for operators alone."""

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.contrib.auth.models import Permission
from django.test import Client as Browser
from playwright.sync_api import Page, Route, expect

from accounts.models import User
from jobs.ids import JobId
from tests.admin.rows import Rows, get, page_url
from tests.admin.test_browser import chromium, look, page
from tests.cast import Client, new_client, new_place, row, unique
from tests.fleet.hooks import Running, file, put
from tests.fleet.wire import WireWorker, public
from tests.wire.api import Api
from tests.wire.sse import Stream
from tests.worker.fakes import png

__all__ = ["chromium", "page"]
expect.set_options(timeout=30_000)  # a busy machine takes its time
PROGRESS = {"fraction": 0.4355, "node": "3", "class_type": "KSampler", "title": "First <b>pass</b>"}
PROGRESS |= {"value": 12, "max": 20, "nodes_done": 4, "nodes_total": 8}
CSP = "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src * data:"


@pytest.fixture
def acme() -> Client:
    """At an endpoint of our worker's, with its files in the operator's S3."""
    return new_client(new_place("hearth"))


def live(page: Page, part: str) -> Any:
    return page.locator(f"[data-live={part}]")


def take(web: Any, acme: Client, job: JobId, name: str = "w1") -> Running:
    running = Running(acme, job, WireWorker(web.url, acme.place, name))
    assert running.attempt.startswith(public(job))
    return running


def tell(running: Running, **more: Any) -> None:
    assert running.worker.done(running.attempt, status="IN_PROGRESS", output=PROGRESS | more).status == 200


def store(running: Running, name: str) -> list[dict[str, Any]]:
    """A picture of 64 pixels in its bucket, and its preview of 32, of which Hearth is told while the job runs."""
    content, small = png(size=64), png(size=32)
    assets = running.stored(file(name, content), content=content)
    (slot,) = running.ask("small", {"files": [{"id": assets[0]["id"], "bytes": len(small)}]}).json["small"]
    assert put(slot, small).status == 200
    assets[0]["preview"] = True
    for what, body in (("stored", {"ids": [assets[0]["id"]]}), ("outputs", {"assets": assets})):
        assert running.ask(what, body).status == 200
    return assets


def finish(running: Running, *assets: dict[str, Any]) -> None:
    running.done(files=[asset["key"] for asset in assets], assets=list(assets), datas={})


def test_a_page_follows_its_job_from_the_queue_to_its_end(page: Page, web: Any, acme: Client, tmp_path: Path) -> None:
    before, job = acme.submit(), acme.submit()
    page.goto(page_url(row(job)))
    expect(live(page, "waits")).to_contain_text("Waits at place 2: No worker has served this endpoint yet.")
    expect(live(page, "connection")).to_have_text("Live")
    look(page, "Waits at place 2", tmp_path / "queued.png")
    acme.cancel(before)
    expect(live(page, "waits")).to_contain_text("place 1")
    running = take(web, acme, job)
    expect(page.locator("#job-page")).to_contain_text("handed to a worker")
    expect(page.locator("#job_form fieldset").first).to_contain_text("IN_PROGRESS")
    expect(live(page, "waits")).to_be_hidden()
    running.ask("started")
    tell(running)
    expect(live(page, "node")).to_have_text("Node 3, KSampler “First <b>pass</b>”")
    expect(live(page, "steps")).to_have_text("step 12 of 20")
    expect(live(page, "nodes")).to_have_text("4 of 8 nodes done")
    expect(live(page, "fraction")).to_have_text("43 %")
    expect(live(page, "bar")).to_have_attribute("style", "width: 43.55%;")
    picture = {"node": "3", "content_type": "image/png", "data": base64.b64encode(png(size=64)).decode()}
    assert running.ask("preview", picture).status == 200
    assets = store(running, "early.png")
    expect(live(page, "preview")).to_have_js_property("naturalWidth", 64)
    expect(live(page, "outputs").locator("img")).to_have_js_property("naturalWidth", 32)
    expect(live(page, "outputs").locator("a")).to_have_text("early.png, node 9")
    look(page, "step 12 of 20", tmp_path / "running.png")
    finish(running, *assets)
    expect(page.locator("#job-live")).to_have_count(0)
    expect(page.locator("#job_form fieldset").first).to_contain_text("COMPLETED")
    look(page, "early.png", tmp_path / "ended.png")


def test_what_an_attempt_had_made_goes_when_it_is_lost(page: Page, web: Any, acme: Client) -> None:
    job = acme.submit()
    running = take(web, acme, job)
    page.goto(page_url(row(job)))
    tell(running)
    store(running, "early.png")
    expect(live(page, "outputs")).to_contain_text("early.png")
    expect(live(page, "fraction")).to_have_text("43 %")
    assert running.ask("hand-back", {"reason": "the worker shuts down", "code": "shutdown"}).status == 200
    expect(live(page, "waits")).to_contain_text("place 1")
    for part in ("outputs", "progress"):
        expect(live(page, part)).to_be_hidden()
    again = take(web, acme, job, "w2")
    tell(again, fraction=0.1)
    expect(live(page, "fraction")).to_have_text("10 %")
    assert "early.png" not in live(page, "outputs").inner_html()
    finish(again)
    expect(page.locator("#job-live")).to_have_count(0)


def test_a_page_outlives_its_web_process_and_asks_for_what_it_has_not_heard(page: Page, web: Any, acme: Client) -> None:
    job = acme.submit()
    running = take(web, acme, job)
    asked: list[str | None] = []
    page.on("request", lambda sent: asked.append(sent.header_value("last-event-id")) if "/events" in sent.url else None)
    page.goto(page_url(row(job)))
    tell(running)
    expect(live(page, "fraction")).to_have_text("43 %")
    assert store(running, "early.png")
    expect(live(page, "outputs")).to_contain_text("early.png")
    for stop in (web.stop, web.kill):
        stop()
        expect(live(page, "connection")).to_have_text("Connection lost, trying again")
        web.start()
        expect(live(page, "connection")).to_have_text("Live")
    tell(running, fraction=0.7)
    expect(live(page, "fraction")).to_have_text("70 %")
    assert live(page, "outputs").locator("a").count() == 1
    finish(running)
    expect(page.locator("#job-live")).to_have_count(0)
    assert (asked[0], set(asked[1:])) == (None, {"3"})


def test_a_stream_that_is_refused_is_asked_for_again(page: Page, web: Any, acme: Client) -> None:
    """A browser gives up at an answer that is no stream, as a proxy's while web is away."""
    job = acme.submit()
    refusals = iter([502, 503])

    def refuse(route: Route) -> None:
        status = next(refusals, None)
        route.fulfill(status=status, body="away") if status else route.continue_()

    with page.context.new_page() as tab:  # whose refused requests are no faults
        tab.route("**/events", refuse)
        tab.goto(page_url(row(job)))
        expect(live(tab, "connection")).to_have_text("Connection lost, trying again")
        expect(live(tab, "connection")).to_have_text("Live")
        assert not list(refusals)
        take(web, acme, job)
        expect(tab.locator("#job-page")).to_contain_text("handed to a worker")


def test_a_page_that_nobody_sees_holds_no_connection(page: Page, web: Any, acme: Client) -> None:
    running = take(web, acme, job := acme.submit())
    page.goto(page_url(row(job)))
    tell(running)
    expect(live(page, "fraction")).to_have_text("43 %")
    turn = "hidden => {Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); "
    turn += "document.dispatchEvent(new Event('visibilitychange'))}"
    page.evaluate(turn, True)
    tell(running, fraction=0.6)
    with httpx.Client(base_url=web.url) as client:
        Stream(Api.of(client, acme), public(job)).has("progress", fraction=0.6)
    expect(live(page, "fraction")).to_have_text("43 %")
    page.evaluate(turn, False)
    expect(live(page, "fraction")).to_have_text("60 %")


def test_a_strict_policy_for_scripts_refuses_nothing_of_it(page: Page, web: Any, acme: Client) -> None:
    """unsafe-eval is for Alpine, which Unfold's pages run on."""
    job = acme.submit()

    def under_policy(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers=answer.headers | {"content-security-policy": CSP})

    page.route(f"**{page_url(row(job))}", under_policy)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(page_url(row(job)))
    running = take(web, acme, job)
    tell(running)
    expect(live(page, "bar")).to_have_attribute("style", "width: 43.55%;")
    finish(running)
    expect(page.locator("#job-live")).to_have_count(0)
    assert [text for text in said if "Content Security Policy" in text] == []


def test_the_page_of_a_job_that_has_ended_is_still(browser: Browser, rows: Rows) -> None:
    text = get(browser, page_url(rows.add_job()))
    assert "live.js" not in text
    assert "live.js" in get(browser, page_url(row(rows.submit())))


def session(user: User | None) -> dict[str, str]:
    browser = Browser()
    if user:
        browser.force_login(user)
    return {name: cookie.value for name, cookie in browser.cookies.items()}


def ask(web: Any, job: JobId, cookies: dict[str, str], method: str = "HEAD", **headers: str) -> httpx.Response:
    with httpx.Client(base_url=web.url, cookies=cookies) as client:
        return client.request(method, f"/admin/jobs/job/{job.uuid}/events", headers=headers)


def user(**fields: Any) -> User:
    return User.objects.create_user(unique("user"), **fields)


def test_only_who_may_see_jobs_in_the_admin_may_follow_one(web: Any, acme: Client, operator: User) -> None:
    job = acme.submit()
    seer, other = user(is_staff=True), user(is_staff=True)
    seer.user_permissions.add(Permission.objects.get(codename="view_job"))
    other.user_permissions.add(Permission.objects.get(codename="view_worker"))
    member = user()
    member.user_permissions.add(Permission.objects.get(codename="view_job"))
    gone = user(is_staff=True, is_superuser=True)
    cookies = session(gone)
    gone.is_active = False
    gone.save()
    answered = {who: ask(web, job, session(each)).status_code for who, each in [("seer", seer), ("root", operator)]}
    assert answered == {"seer": 200, "root": 200}
    refused = [session(other), session(member), session(None), cookies, {settings.SESSION_COOKIE_NAME: "nonsense"}]
    assert [ask(web, job, each).status_code for each in refused] == [403] * 5
    assert ask(web, job, session(other), "GET").json()["code"] == "forbidden"


def test_a_tenants_key_does_not_open_the_operators_stream(web: Any, acme: Client) -> None:
    globex, job = new_client(acme.place, "globex"), acme.submit()
    for client in (acme, globex):
        assert ask(web, job, {}, Authorization=f"Bearer {client.api_key}").status_code == 403


def test_a_job_that_is_not_there_is_404_and_other_methods_405(web: Any, acme: Client, operator: User) -> None:
    cookies, job = session(operator), acme.submit()
    assert ask(web, JobId(acme.tenant.pk, False), cookies, "GET").json()["code"] == "not_found"
    assert ask(web, job, cookies, "POST").status_code == 405
    with httpx.Client(base_url=web.url, cookies=cookies) as client:
        beside = client.get("/admin/jobs/job/nonsense/events", follow_redirects=True)
    assert "text/html" in beside.headers["content-type"]


def test_the_operators_stream_says_what_the_tenants_does(web: Any, acme: Client, operator: User) -> None:
    job = acme.submit()
    acme.cancel(job)
    with httpx.Client(base_url=web.url) as client:
        tenants = client.get(f"/api/v1/jobs/{public(job)}/events", headers=acme.headers).text
    told = ask(web, job, session(operator), "GET").text
    assert without_retry(told) == without_retry(tenants)
    assert ask(web, job, session(operator), "GET", **{"Last-Event-ID": "2-end"}).status_code == 204
    resumed = ask(web, job, session(operator), "GET", **{"Last-Event-ID": "1"}).text
    assert (resumed.count("event: state"), resumed.count("event: end")) == (1, 1)


def without_retry(text: str) -> str:
    return text.partition("\n\n")[2]
