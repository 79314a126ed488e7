from tests.stage import _database

__all__ = ["_database"]
