"""Members see their own tenant in the admin and do what their role may; of others they see nothing, not a name."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client as Browser
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from accounts.admin.pages import RelatedFilter
from accounts.admin.scope import OPERATORS_ONLY, Members, Scoped, ScopedPage
from accounts.models import ApiKey, Member, Tenant
from jobs.models import Delivery, Endpoint
from storage.models import Bucket
from tests.admin import walk
from tests.admin.rows import MODELS, get, list_url, page_url
from tests.admin.walk import OF_A_TENANT, ROLES, Company, member, signed_in
from tests.cast import unique

DOCS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
RIGHTS = ("view", "add", "change", "delete", "operate")
PAGES = admin.site._registry


@pytest.fixture(scope="module")
def acme(database: str) -> Company:
    return Company()


@pytest.fixture(scope="module")
def globex(database: str) -> Company:
    return Company()


def words_in(text: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word in text]


def test_every_page_says_what_members_have_of_it() -> None:
    unsaid = [
        page
        for page in PAGES.values()
        if not isinstance(page, ScopedPage)
        or not any("open_to" in vars(kind) for kind in type(page).__mro__ if kind not in (Scoped, ScopedPage))
    ]
    assert not unsaid, "derive them from accounts.admin.pages.Admin and say `open_to`: OPERATORS_ONLY, or Members(…)"


def test_every_list_in_a_page_and_every_filter_by_rows_is_scoped() -> None:
    lists = [inline for page in PAGES.values() for inline in page.inlines]
    filters = [each[1] for page in PAGES.values() for each in page.list_filter if isinstance(each, tuple)]
    assert [inline for inline in lists if not issubclass(inline, Scoped)] == []
    of_rows = [each for each in filters if issubclass(each, AutocompleteSelectFilter)]
    assert [each for each in of_rows if not issubclass(each, RelatedFilter)] == [], "use pages.RelatedFilter"
    assert len(lists) > 5
    assert len(of_rows) > 10


def test_the_operators_guide_has_what_each_role_may() -> None:
    """Its table is what the pages say."""
    table = DOCS.read_text().partition("| Page |")[2].partition("\n\n")[0]
    lines = re.findall(r"^\| ([A-Z][^|]+) \|(.*)\|$", table, re.M)
    told = {name: tuple(cell.strip() for cell in cells.split("|")) for name, cells in lines}
    shown = {model: page.open_to for model, page in PAGES.items() if page.open_to.view}
    names = {str(model._meta.verbose_name_plural): model for model in shown}
    assert told == {
        name[0].upper() + name[1:]: tuple(getattr(shown[model], right) or "" for right in RIGHTS)
        for name, model in names.items()
    }


@pytest.mark.parametrize("who", ["nobody", "a user without a place"])
def test_who_has_no_place_is_sent_to_the_login(acme: Company, who: str) -> None:
    user = None if who == "nobody" else member(Tenant.objects.create(name=unique("gone")), "owner")
    if user:
        Member.all_tenants.filter(user=user).delete()
    browser = signed_in(user)
    urls = [url for model in MODELS for url in walk.lists(model)] + walk.of_the_site()
    urls += [url for model, row in acme.of_kind.items() for url in walk.pages(model, row.pk)]
    urls += [next(walk.offered(acme.rows.name))]
    answers = {url: browser.get(url) for url in urls}
    assert {url for url, answer in answers.items() if answer.status_code != 302} == set()
    assert {answer["Location"].partition("?")[0] for answer in answers.values()} == {"/admin/login/"}
    assert len(urls) > 100


def test_a_stranger_sees_nothing_wherever_he_looks(acme: Company, globex: Company) -> None:
    """globex's owner, at every address of the admin, with acme's ids in it."""
    browser, seen, looked = globex.browsers["owner"], {}, 0
    for model in MODELS:
        urls = [*walk.lists(model), *walk.narrowed(model, acme), *walk.pages(model, acme.of_kind[model].pk)]
        for url in urls:
            answer = browser.get(url)
            browser.cookies.pop("messages", None)  # of a row that is not there the next page would say its id
            assert answer.status_code < 500, url
            text = answer.content.decode() + answer.headers.get("Location", "")
            found = words_in(text, [word for word in acme.words if word not in url])
            seen |= {url: found} if found else {}
            looked += 1
    for url in (*walk.of_the_site(), *walk.offered(acme.rows.name[:-2])):
        found = words_in(browser.get(url).content.decode(), acme.words)
        seen |= {url: found} if found else {}
    assert seen == {}
    assert looked > 150


def test_nor_does_he_where_a_page_is_made_with_acmes_ids_filled_in(acme: Company, globex: Company) -> None:
    for model in OF_A_TENANT:
        filled_in = f"tenant={acme.tenant.pk}&bucket={acme.rows.bucket.pk}"
        page = globex.browsers["owner"].get(f"{list_url(model)}add/?{filled_in}")
        assert not words_in(page.content.decode(), acme.words - {str(acme.tenant.pk)}), model


def test_a_strangers_posts_change_nothing(acme: Company, globex: Company) -> None:
    before = acme.state()
    assert walk.try_everything(globex.browsers["owner"], acme, acme.tenant) == []
    assert acme.state() == before


def test_a_viewers_posts_change_nothing(acme: Company) -> None:
    before = acme.state()
    assert walk.try_everything(acme.browsers["viewer"], acme, acme.tenant) == []
    assert acme.state() == before


def status(browser: Browser, url: str) -> int:
    return browser.get(url).status_code


@pytest.mark.parametrize("role", ROLES)
def test_each_role_reads_what_is_its_tenants_and_finds_the_forms_that_it_may_use(acme: Company, role: str) -> None:
    browser, wrong = acme.browsers[role], []
    for model in MODELS:
        open_to: Members = PAGES[model].open_to
        page: Any = PAGES[model]
        can = {right: right_of(role, getattr(open_to, right)) for right in RIGHTS}
        request = walk._request(acme.users[role])
        expected = {list_url(model): can["view"], f"{list_url(model)}add/": page.has_add_permission(request)}
        if can["view"]:
            row = acme.of_kind[model]
            expected |= {page_url(row): True, page_url(row, "history"): True, page_url(row, "delete"): can["delete"]}
        wrong += [url for url, may in expected.items() if status(browser, url) != (200 if may else 403)]
        assert not page.has_add_permission(request) or can["add"]
        assert not page.has_change_permission(request) or can["change"]
    assert wrong == []


def right_of(role: str, least: str | None) -> bool:
    return least is not None and Member.RANK[role] >= Member.RANK[least]


@pytest.mark.parametrize("role", ROLES)
def test_the_sidebar_leads_only_where_the_role_may_go(acme: Company, role: str) -> None:
    home = get(acme.browsers[role], "/admin/")
    for model in MODELS:
        assert (f'href="{list_url(model)}"' in home) == bool(PAGES[model].open_to.view), model


def test_an_operator_sees_both(acme: Company, globex: Company, browser: Browser) -> None:
    text = get(browser, f"{list_url(Tenant)}?q={acme.tenant.name}") + get(browser, page_url(globex.tenant))
    assert not {acme.tenant.name, globex.tenant.name} - set(words_in(text, [acme.tenant.name, globex.tenant.name]))


def test_a_member_of_two_tenants_sees_both_and_acts_by_his_role_in_each(acme: Company, globex: Company) -> None:
    user = member(acme.tenant, "owner")
    Member.all_tenants.create(tenant=globex.tenant, user=user, role="viewer")
    browser = signed_in(user)
    mine, theirs = acme.of_kind[ApiKey], globex.of_kind[ApiKey]
    keys = [ApiKey.issue(tenant=company.tenant, name="two")[0] for company in (acme, globex)]
    assert status(browser, page_url(mine)) == status(browser, page_url(theirs)) == 200
    browser.post(page_url(keys[1], "change").replace("change", "revoke"), walk.GIVEN)
    chosen = {"action": "revoke_selected", "_selected_action": [key.pk for key in keys]}
    answer = browser.post(list_url(ApiKey), chosen, follow=True)
    assert "Left out: 1 row, where your role does not allow it." in answer.content.decode()
    assert [bool(ApiKey.all_tenants.get(pk=key.pk).revoked_at) for key in keys] == [True, False]
    add = {"name": "third", "scopes": ["run"]}
    browser.post(f"{list_url(ApiKey)}add/", add | {"tenant": globex.tenant.pk})
    browser.post(f"{list_url(ApiKey)}add/", add | {"tenant": acme.tenant.pk})
    assert [key.tenant_id for key in ApiKey.all_tenants.filter(name="third")] == [acme.tenant.pk]


def test_a_place_that_was_taken_away_is_gone_at_once(acme: Company) -> None:
    user = member(acme.tenant, "owner")
    browser = signed_in(user)
    get(browser, page_url(acme.tenant))
    Member.all_tenants.filter(user=user).delete()
    assert status(browser, page_url(acme.tenant)) == 302


def test_a_deleted_tenant_has_no_members(database: str) -> None:
    tenant = Tenant.objects.create(name=unique("gone"))
    browser = signed_in(member(tenant, "owner"))
    get(browser, "/admin/")
    Tenant.objects.filter(pk=tenant.pk).update(deleted_at="2026-01-01T00:00Z")
    assert status(browser, "/admin/") == 302


@pytest.mark.parametrize(
    "lookup",
    ["tenant__name__startswith", "tenant__cost_a_month__gt", "tenant__members__user__password__startswith"],
)
def test_a_list_is_asked_about_nothing_but_its_filters(acme: Company, lookup: str) -> None:
    """Django would let a member find out, letter by letter, what stands in the rows that his own ones name."""
    assert status(acme.browsers["owner"], f"{list_url(Member)}?{lookup}=0") == 400
    assert status(acme.browsers["owner"], f"{list_url(Member)}?user__password__startswith=pbkdf2") == 400
    assert status(acme.browsers["owner"], f"{list_url(Bucket)}?is_default__exact=1") == 200
    assert status(acme.browsers["viewer"], f"{list_url(Delivery)}?own_url__startswith=https") == 400


def test_endpoints_are_offered_by_name_and_have_no_page(acme: Company, globex: Company) -> None:
    browser, endpoint = acme.browsers["viewer"], acme.rows.place.endpoint
    offered = next(url for url in walk.offered("") if "model_name=job&" in url and "field_name=endpoint" in url)
    assert endpoint.name in get(browser, offered.replace("term=", f"term={endpoint.name}"))
    assert globex.rows.place.name not in get(browser, offered.replace("term=", f"term={globex.rows.place.name}"))
    assert status(browser, page_url(endpoint)) == status(browser, list_url(Endpoint)) == 403
    assert PAGES[Endpoint].open_to != OPERATORS_ONLY
