"""All sealed secrets as one: whether the keys of the settings open them, and sealing them anew with the first key."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error
from django.db import OperationalError, ProgrammingError

from accounts.sealed import SealBroken, Sealed, SealedField

log = logging.getLogger("hearth.secrets")
SAMPLE = 20
BATCH = 500


def sealed_fields() -> list[SealedField]:
    """Every sealed column of every model, those that later apps add too."""
    models = [model for model in apps.get_models() if model._meta.managed and not model._meta.proxy]
    return [found for model in models for found in model._meta.local_concrete_fields if isinstance(found, SealedField)]


def _stored(sealed: SealedField) -> Any:
    return sealed.model._base_manager.filter(**{f"{sealed.attname}__isnull": False})


def keys_fault() -> str:
    """Why this instance must not start; "" if one of the newest stored secrets opens, or none is stored.

    What the database does not tell now, since it is away or not migrated, is no fault.
    """
    newest = [found for sealed in sealed_fields() for found in _newest(sealed)]
    broken = [name for name, secret in newest if not _opens(secret)]
    if not broken:
        return ""
    if len(broken) < len(newest):
        log.warning(
            "%d of the %d newest secrets open with none of HEARTH_SEAL_KEYS (%s): `manage.py rotate_secrets` names all",
            *(len(broken), len(newest), broken[0]),
        )
        return ""
    return (
        f"HEARTH_SEAL_KEYS opens none of the secrets in this database ({broken[0]}). Set the keys that it was used "
        "with; an older key goes behind the first one. If they are lost: `manage.py rotate_secrets --discard`."
    )


def _newest(sealed: SealedField) -> list[tuple[str, Sealed]]:
    try:
        rows = list(_stored(sealed).order_by("-pk").values_list("pk", sealed.attname)[:SAMPLE])
    except (OperationalError, ProgrammingError):
        return []
    return [(f"{sealed} of {pk}", secret) for pk, secret in rows]


def _opens(secret: Sealed) -> bool:
    try:
        secret.sealed_anew()
    except SealBroken:
        return False
    return True


def check_seal_keys(databases: Any = None, **_: Any) -> list[CheckMessage]:
    """The same as a system check: of `migrate`, and of `check --database default`."""
    fault = keys_fault() if databases else ""
    return [Error(fault, id="accounts.E001")] if fault else []


@dataclass
class Resealed:
    """What became of a column's secrets. changed: by somebody else meanwhile. broken: the rows that no key opens."""

    column: str
    resealed: int = 0
    already: int = 0
    changed: int = 0
    broken: list[str] = field(default_factory=list)


def reseal_all(*, discard: bool = False) -> Iterator[Resealed]:
    """Seal every secret with the first key, while all goes on; what was done stays done if this is cut off.

    discard: what no key opens is replaced by an empty secret, which is refused when it is used.
    """
    for sealed in sealed_fields():
        yield _reseal(sealed, discard)


def _reseal(sealed: SealedField, discard: bool) -> Resealed:
    done = Resealed(str(sealed))
    batch = _stored(sealed).order_by("pk")
    while rows := list(batch.values_list("pk", sealed.attname)[:BATCH]):
        for pk, secret in rows:
            _reseal_row(sealed, pk, secret, done, discard)
        batch = batch.filter(pk__gt=rows[-1][0])
    return done


def _reseal_row(sealed: SealedField, pk: Any, secret: Sealed, done: Resealed, discard: bool) -> None:
    try:
        new = secret.sealed_anew()
    except SealBroken:
        done.broken.append(str(pk))
        if discard:
            _replace(sealed, pk, secret, Sealed.seal(""))
        return
    if new is None:
        done.already += 1
    elif _replace(sealed, pk, secret, new):
        done.resealed += 1
    else:
        done.changed += 1


def _replace(sealed: SealedField, pk: Any, old: Sealed, new: Sealed) -> bool:
    """Compare-and-set: what somebody has entered meanwhile stays."""
    return bool(_stored(sealed).filter(pk=pk, **{sealed.attname: old}).update(**{sealed.attname: new}))
