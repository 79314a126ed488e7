"""Keys are shown once and stored as a digest; secrets are sealed and print as …"""

import pytest
from cryptography.fernet import Fernet

from accounts.keys import CLIENT, given_key, new_key
from accounts.models import ApiKey, Member, Tenant, TenantForgotten, User
from accounts.sealed import SealBroken, Sealed
from tests.cast import new_client, new_place, unique


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer {}", "  Bearer   {} "])
def test_a_key_is_read_bare_and_as_bearer(form: str) -> None:
    key = new_key(CLIENT)
    given = given_key(form.format(key.text))
    assert (given.kind, given.prefix) == ("hth", key.prefix)
    assert given.matches(key.digest)


@pytest.mark.parametrize(
    "text", [None, "", "Bearer", "Bearer x", "Basic abc", "hth_", "hth_0_0", "hth_" + "0" * 56, "\0"]
)
def test_what_cannot_be_a_key_is_none(text: str | None) -> None:
    assert given_key(text).kind == ""


def test_the_text_of_a_key_is_nowhere_in_its_row() -> None:
    client = new_client(new_place())
    row = ApiKey.all_tenants.filter(tenant=client.tenant).values().get()
    secret = client.api_key.rsplit("_", 1)[1]
    assert secret not in str(row)
    assert secret.encode() not in bytes(row["digest"])


def test_a_used_key_is_marked_at_most_once_a_minute() -> None:
    client = new_client(new_place())
    client.submit({"n": 1})
    first = ApiKey.all_tenants.get(tenant=client.tenant).last_used_at
    client.submit({"n": 2})
    assert ApiKey.all_tenants.get(tenant=client.tenant).last_used_at == first is not None


def test_a_sealed_secret_prints_as_nothing() -> None:
    secret = Sealed.seal("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {secret.token!r}"
    assert secret.unseal() == "hunter2"


def test_a_new_first_key_seals_and_the_old_one_still_opens(settings_keys: list[str]) -> None:
    old = Sealed.seal("hunter2")
    settings_keys.insert(0, Fernet.generate_key().decode())
    assert old.unseal() == "hunter2"
    assert Sealed.seal("x").unseal() == "x"


def test_a_secret_whose_key_is_gone_says_so(settings_keys: list[str]) -> None:
    secret = Sealed.seal("hunter2")
    settings_keys[:] = [Fernet.generate_key().decode()]
    with pytest.raises(SealBroken, match="HEARTH_SEAL_KEYS"):
        secret.unseal()


@pytest.fixture
def settings_keys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from django.conf import settings

    keys = list(settings.SEAL_KEYS)
    monkeypatch.setattr(settings, "SEAL_KEYS", keys)
    return keys


def test_a_member_has_one_place_in_a_tenant_and_is_found_from_it() -> None:
    tenant = Tenant.objects.create(name=unique("acme"))
    user = User.objects.create_user(unique("alice"))
    Member.all_tenants.create(tenant=tenant, user=user, role=Member.Role.OWNER)
    assert [member.user for member in Member.objects.of(tenant)] == [user]
    with pytest.raises(TenantForgotten):
        Member.objects.filter(user=user)
