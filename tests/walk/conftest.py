from tests.stage import _database
from tests.wire.conftest import http

__all__ = ["_database", "http"]
