from tests.stage import _database, own_place, place
from tests.wire.conftest import acme, globex, http, own_acme

__all__ = ["_database", "acme", "globex", "http", "own_acme", "own_place", "place"]
