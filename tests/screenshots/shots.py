"""Pictures of the admin's pages, small enough for the README."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

MOST_BYTES = 150 * 1024
WIDTH = 1280


@dataclass(frozen=True)
class Shot:
    """`look`: a text that is there when the page is."""

    name: str
    path: str
    look: str
    height: int = 900
    dark: bool = False


def take(browser: Browser, url: str, password: str, shots: Iterable[Shot], to: Path) -> list[Path]:
    """Signed in as the operator `admin`. The files, `<name>.webp` in the folder `to`."""
    to.mkdir(parents=True, exist_ok=True)
    return [_taken(browser, url, password, shot, to / f"{shot.name}.webp") for shot in shots]


def _taken(browser: Browser, url: str, password: str, shot: Shot, to: Path) -> Path:
    scheme = "dark" if shot.dark else "light"
    size = {"width": WIDTH, "height": shot.height}
    context = browser.new_context(base_url=url, viewport=size, color_scheme=scheme, timezone_id="UTC")  # type: ignore[arg-type]
    try:
        page = context.new_page()
        sign_in(page, "admin", password)
        page.goto(shot.path)
        page.wait_for_selector(f"text={shot.look} >> visible=true")
        page.wait_for_load_state("networkidle")
        _save(page.screenshot(animations="disabled"), to)
    finally:
        context.close()
    return to


def sign_in(page: Page, name: str, password: str) -> None:
    page.goto("/admin/")
    page.fill("#id_username", name)
    page.fill("#id_password", password)
    page.click("button[type=submit]")
    page.wait_for_url("/admin/")


def _save(png: bytes, to: Path) -> None:
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").save(to, "WEBP", quality=82, method=6)
    if to.stat().st_size > MOST_BYTES:
        raise ValueError(f"{to} has {to.stat().st_size} bytes, more than {MOST_BYTES}.")
