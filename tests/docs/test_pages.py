"""What the docs say of the code is so: links, settings, states, files; and a test runs each of their commands."""

import re
from pathlib import Path

import django
import pytest

from hearth.local.instance import ROOT
from tests.docs import settings_table
from tests.docs.pages import FENCED, PAGES, anchors, blocks, links, prose
from tests.images import composed

django.setup()

from jobs.states import MOVES, State  # noqa: E402

RUN = {  # by language; what is in none of these is no command
    "bash": {"README.md", "examples/README.md", "api.md", "operations.md", "runpod.md", "worker.md"},  # tests/e2e
    "python": {"README.md", "api.md"},
    "js": {"api.md"},
    "sh": {"README.md"},
    "console": {"operations.md"},  # needs Docker: held to compose.yaml below, what it runs inside by tests/e2e
}
SHOWN = {"json", "mermaid", "nginx"}
COMMAND = re.compile(r"^ {4,}(?:\$ )?(?:export|make|curl|docker|python3?|psql|pg_\w+|manage\.py|\.venv/\S+)\b", re.M)
of_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@of_every_page
def test_its_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        there = page if not path else (page.parent / path).resolve()
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def test_the_readme_leads_to_every_page_of_the_docs() -> None:
    told = {link.partition("#")[0] for link in links(ROOT / "README.md")}
    assert {f"docs/{page.name}" for page in PAGES if page.parent.name == "docs"} - told == set()


@of_every_page
def test_each_of_its_commands_is_run(page: Path) -> None:
    name = str(page.relative_to(ROOT)).removeprefix("docs/")
    languages = {language for language, _ in FENCED.findall(page.read_text())} - SHOWN
    assert languages == {language for language, pages in RUN.items() if name in pages}
    assert COMMAND.findall(prose(page)) == [], "say it in a block of bash, which tests/e2e/test_docs.py runs"


def test_the_settings_table_is_what_the_code_makes_of_it() -> None:
    page = settings_table.PAGE.read_text()
    assert page == settings_table.made(page)
    assert f"| {settings_table.NO_WORDS} |" not in page
    read = {name for name, _ in settings_table.read()}
    assert len(read) > 50
    assert read == {name for name, _, _ in settings_table.ROW.findall(page)}


def test_a_new_setting_gets_a_row_and_one_that_is_gone_loses_its_own() -> None:
    page = settings_table.PAGE.read_text()
    row = "| `HEARTH_LEASE_S` | 25 | silence after which a worker has lost its jobs |\n"
    assert row in page
    assert settings_table.made(page.replace(row, "")) == page.replace(row, "| `HEARTH_LEASE_S` | 25 | ? |\n")
    assert settings_table.made(page.replace(row, row + row.replace("LEASE", "NONE"))) == page
    assert settings_table.made(page.replace(row, row.replace("25", "30"))) == page


def test_the_picture_of_a_jobs_life_has_every_legal_move_and_no_other() -> None:
    (picture,) = (block for block in blocks("docs/architecture.md", "mermaid") if block.startswith("stateDiagram"))
    drawn = set(re.findall(r"^  (\w+) --> (\w+):", picture, re.M))
    assert drawn == {(state.value, to.value) for state, targets in MOVES.items() for to in targets}
    assert f"[*] --> {State.IN_QUEUE.value}" in picture


def test_the_files_that_are_named_are_there() -> None:
    for page in PAGES:
        for name in re.findall(
            r"`((?:accounts|storage|jobs|hearth|worker|tests)/[\w/.]*\w)(?:::\w+)?`", page.read_text()
        ):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_what_docker_is_told_is_in_compose() -> None:
    given = dict.fromkeys(composed.required(), "x")
    services = set(composed.services(given))
    for line in "".join(blocks("docs/operations.md", "console")).splitlines():
        assert line.startswith("docker compose "), line
        words = [word for word in line.split()[2:] if not word.startswith("-")]
        named = words[1:2] if words[0] in ("run", "exec") else words[2:] if words[0] == "gpu" else words[1:]
        assert set(named) <= services, line


def test_the_units_run_what_an_instance_runs() -> None:
    """docs/operations.md's units for systemd have the parts of `make up`, started as there."""
    from hearth.local.instance import control_plane

    (shell,) = (block for block in blocks("docs/operations.md", "bash") if "systemd" in block or "[Unit]" in block)
    written = dict(re.findall(r'^unit (\S+) "([^"]+)"', shell, re.M))
    parts = {part.name: " ".join(part.argv[1:]) for part in control_plane({}, 3, 8000, 1.0)}
    assert written == parts
