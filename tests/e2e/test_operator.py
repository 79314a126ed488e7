"""An operator in a browser, at a whole instance: from a failure on the first page to the job that was retried; and the
README's pictures of such an instance."""

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from hearth.local.instance import ROOT
from tests.admin.chromium import NoChromium, launch
from tests.e2e.instance import Instance, TenantClient, example
from tests.e2e.test_inputs import png
from tests.screenshots.__main__ import FOLDER, password_of, shots_of, uuid_of
from tests.screenshots.shots import MOST_BYTES, sign_in, take

expect.set_options(timeout=60_000)  # a busy machine takes its time


class Photo(BaseHTTPRequestHandler):
    """A tenant's server, whose picture is missing until `there`."""

    there = False

    def do_GET(self) -> None:
        body = png(60, 40) if self.there else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def photo() -> Iterator[str]:
    Photo.there = False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Photo)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/photo.png"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    try:
        with sync_playwright() as playwright, launch(playwright) as browser:
            yield browser
    except NoChromium as missing:
        pytest.fail(f"The admin was NOT tested in a browser. {missing}")


@pytest.fixture
def page(chromium: Browser, up: Instance) -> Iterator[Page]:
    with chromium.new_context(base_url=up.url, viewport={"width": 1440, "height": 900}) as context:
        made = context.new_page()
        sign_in(made, "admin", password_of(up))
        yield made


def failed_job(acme: TenantClient, url: str) -> str:
    workflow = example("load_image")
    workflow["1"]["inputs"]["image"] = url
    job = acme.run(workflow)
    assert acme.ended(job)["status"] == "FAILED"
    return job


def test_an_operator_finds_a_failed_job_sees_why_retries_it_and_watches_it_finish(
    up: Instance, page: Page, photo: str
) -> None:
    acme = up.tenant("acme")
    job = failed_job(acme, photo)
    page.goto("/admin/")
    expect(page.locator("#verdict")).to_contain_text("1 of 1 job failed or timed out.")
    page.click(f"#endpoints tbody:has-text('{acme.endpoint}') >> text=1 (100 %)")
    page.click(f"text={job}")
    expect(page.locator("#job-why")).to_contain_text(re.compile("photo.png.*404"))
    expect(page.locator("#job-bars li svg[role=img]")).to_have_count(1)
    Photo.there = True
    page.click("text=Retry the job")
    page.click("#modal-content button[type=submit]")
    expect(page.locator("#job_form fieldset").first).to_contain_text("COMPLETED")  # nobody reloads the page
    expect(page.locator("#job-live")).to_have_count(0)
    expect(page.locator("#job-why")).to_have_count(0)
    expect(page.locator("#job-bars li svg[role=img]")).to_have_count(2)
    expect(page.locator("#job-page img").first).to_have_js_property("complete", True)
    page.goto("/admin/")
    expect(page.locator(f"#endpoints tbody:has-text('{acme.endpoint}')")).to_contain_text("1 of 2 jobs failed")
    assert acme.status(job)["status"] == "COMPLETED"


def test_the_first_page_is_fetched_anew_unless_somebody_reads_a_table(page: Page) -> None:
    page.clock.install()
    page.goto("/admin/")
    page.evaluate("document.querySelector('#as-of').textContent = 'as it was'")
    page.click("#delay summary")
    page.clock.run_for(40_000)
    expect(page.locator("#as-of")).to_have_text("as it was")
    page.click("#delay summary")
    page.clock.run_for(40_000)
    expect(page.locator("#as-of")).to_contain_text("As of")
    page.context.clear_cookies()
    page.clock.run_for(40_000)
    page.wait_for_selector("#id_password")


def test_pictures_are_taken_of_an_instance(up: Instance, chromium: Browser, photo: str, tmp_path: Path) -> None:
    """As `make screenshots` does, with a past and jobs of its own."""
    acme = up.tenant("acme")
    done = acme.ended(acme.run(example("img_chain")))
    shots = shots_of(uuid_of(done["id"]), uuid_of(failed_job(acme, photo)))
    made = take(chromium, up.url, password_of(up), shots, tmp_path)
    assert [each.stem for each in made] == [shot.name for shot in shots]
    for each, shot in zip(made, shots, strict=True):
        with Image.open(each) as picture:
            assert picture.size == (1280, shot.height)
            assert len(picture.convert("RGB").getcolors(2**24) or ()) > 500, f"{each} looks empty"


def test_the_readmes_pictures_are_there_small_and_all_shown() -> None:
    shown = set(re.findall(r"\((docs/screenshots/[\w-]+\.webp)\)", (ROOT / "README.md").read_text()))
    assert shown == {str(path.relative_to(ROOT)) for path in FOLDER.iterdir()}
    assert len(shown) >= 3
    assert all((ROOT / path).stat().st_size <= MOST_BYTES for path in shown)
