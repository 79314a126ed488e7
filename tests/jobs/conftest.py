from tests.stage import _database, acme, globex, own_place, place

__all__ = ["_database", "acme", "globex", "own_place", "place"]
