"""What runs the worker image's script: an endpoint of dialect hearth and a web process."""

from tests.stage import _database, own_place

__all__ = ["_database", "own_place"]
