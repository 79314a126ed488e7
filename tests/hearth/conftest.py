import django
import pytest

django.setup()


@pytest.fixture(autouse=True)
def _database(database: str) -> None:
    """Every test here uses the database."""
