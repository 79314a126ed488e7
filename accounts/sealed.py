"""Secrets at rest: sealed with the first key of settings.SEAL_KEYS, unsealed with any; never shown by accident."""

from functools import cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import models


class SealBroken(ValueError):
    """No key of HEARTH_SEAL_KEYS opens this secret: a key was removed before the secrets were sealed anew, or lost."""


@cache
def _opened_by(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def _fernet(keys: int | None = None) -> MultiFernet:
    """Seals with the first of settings.SEAL_KEYS; opens with so many of them, or with all."""
    return _opened_by(tuple(settings.SEAL_KEYS[:keys]))


class Sealed:
    """An encrypted secret. Prints as "…"; the plain text exists only in what `unseal` returns."""

    __slots__ = ("token",)

    def __init__(self, token: bytes) -> None:
        self.token = bytes(token)

    @classmethod
    def seal(cls, plain: str) -> "Sealed":
        return cls(_fernet().encrypt(plain.encode()))

    def unseal(self) -> str:
        """Raises SealBroken."""
        if plain := self._opened():
            return plain
        raise SealBroken("a stored secret was lost with its key: enter it anew")

    def _opened(self) -> str:
        try:
            return _fernet().decrypt(self.token).decode()
        except InvalidToken as error:
            raise SealBroken("a stored secret opens with none of HEARTH_SEAL_KEYS") from error

    def sealed_anew(self) -> "Sealed | None":
        """The same secret, sealed with the first key; None if it is. Raises SealBroken."""
        try:
            _fernet(1).decrypt(self.token)
        except InvalidToken:
            return Sealed.seal(self._opened())
        return None

    def __repr__(self) -> str:
        return "…"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and other.token == self.token

    def __hash__(self) -> int:
        return hash(self.token)


class SealedField(models.BinaryField):  # type: ignore[type-arg]
    """A column whose Python value is Sealed (or None) and whose stored bytes are the Fernet token."""

    def from_db_value(self, value: bytes | None, *_: Any) -> Sealed | None:
        return None if value is None else Sealed(value)

    def to_python(self, value: Any) -> Sealed | None:
        return value if value is None or isinstance(value, Sealed) else Sealed(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return super().get_db_prep_value(value.token if isinstance(value, Sealed) else value, connection, prepared)

    def value_to_string(self, obj: models.Model) -> str:
        return "…"
