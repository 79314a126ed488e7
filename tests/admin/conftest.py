from collections.abc import Iterator

import django
import pytest

django.setup()

from django.test import Client as Browser  # noqa: E402
from django.test import override_settings  # noqa: E402

from accounts.models import Tenant, User  # noqa: E402
from tests.admin.rows import Rows  # noqa: E402
from tests.admin.walk import PASSWORD, member  # noqa: E402
from tests.cast import unique  # noqa: E402
from tests.stage import _database  # noqa: E402

__all__ = ["_database"]


@pytest.fixture
def quick_passwords() -> Iterator[None]:
    """For who signs in often, in the test's own process: Django's usual hash takes a second of a busy machine."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture
def user(quick_passwords: None) -> User:
    """An owner of a tenant, who signs in by PASSWORD."""
    made = member(Tenant.objects.create(name=unique("acme")), "owner")
    made.set_password(PASSWORD)
    made.save()
    return made


@pytest.fixture
def operator() -> User:
    return User.objects.create_superuser(unique("operator"))


@pytest.fixture
def browser(operator: User) -> Browser:
    """The operator, signed in."""
    made = Browser(SERVER_NAME="localhost")
    made.force_login(operator)
    return made


@pytest.fixture
def rows() -> Rows:
    """A tenant with one row of every kind."""
    made = Rows()
    made.add(1)
    return made
