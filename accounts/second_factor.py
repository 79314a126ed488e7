"""A second factor at logins: enrolled by its user, asked for from then on, turned off by him or by an operator.

What must be right is right under the row's lock: a code is good once, and failures make pauses of up to 512 s.
"""

import base64
import hashlib
import secrets
from urllib.parse import quote, urlencode, urlsplit

from django.conf import settings
from django.db import transaction
from django_otp.oath import TOTP

from accounts.audit import say
from accounts.models import SecondFactor, User
from accounts.sealed import SealBroken, Sealed

KEY_BYTES = 20
RECOVERY_CODES, CODE_BYTES = 10, 10  # 16 letters and digits each
DIGITS = 6


def begin(user: User) -> SecondFactor:
    """One that does not count yet; the same until it does, so that the page may be read again."""
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)
        begun: SecondFactor | None = SecondFactor.objects.filter(user=user).exclude(pk=user.second_factor_id).first()
        return begun or _new(user)


def _new(user: User) -> SecondFactor:
    key = base64.b32encode(secrets.token_bytes(KEY_BYTES)).decode()
    made: SecondFactor = SecondFactor.objects.create(user=user, name="app", key=Sealed.seal(key))
    return made


def key_url(factor: SecondFactor) -> str:
    """What the QR code says, for the app."""
    host = urlsplit(settings.HEARTH_URL).hostname
    issuer = f"Hearth {host}"
    query = urlencode({"secret": factor.key.unseal(), "issuer": issuer}, quote_via=quote)
    return f"otpauth://totp/{quote(issuer)}:{quote(factor.user.get_username())}?{query}"


def confirm(user: User, code: str) -> list[str] | None:
    """From now on it is asked for. The recovery codes, which are shown this once; None: the code is wrong."""
    with transaction.atomic():
        factor = SecondFactor.objects.select_for_update().filter(user=user).exclude(pk=user.second_factor_id).first()
        if factor is None or not _accepts(factor, code):
            return None
        user.second_factor = factor
        user.save(update_fields=["second_factor"])
        return _new_codes(factor)


def verify(user: User, code: str) -> bool:
    with transaction.atomic():
        factor = SecondFactor.objects.select_for_update().filter(pk=user.second_factor_id).first()
        return factor is not None and _accepts(factor, code)


def new_codes(user: User) -> list[str]:
    """In place of those before."""
    with transaction.atomic():
        say(user, "Made new recovery codes.")
        return _new_codes(SecondFactor.objects.select_for_update().get(pk=user.second_factor_id))


def turn_off(user: User) -> None:
    """Sessions go on; the next login is by password alone."""
    with transaction.atomic():
        if SecondFactor.objects.filter(user=user).delete()[0]:
            say(user, "Turned the second factor off.")


def _accepts(factor: SecondFactor, code: str) -> bool:
    """Of the app, or a recovery code, which is then used up."""
    if not factor.verify_is_allowed()[0]:
        return False
    text = "".join(code.split()).replace("-", "").upper()
    good = _is_apps(factor, text) if text.isascii() and text.isdigit() else _is_recovery(factor, text)
    if good:
        factor.throttle_reset()
    else:
        factor.throttle_increment()
    return good


def _is_apps(factor: SecondFactor, digits: str) -> bool:
    try:
        totp = TOTP(base64.b32decode(factor.key.unseal()))
    except SealBroken:
        return False
    if len(digits) != DIGITS or not totp.verify(int(digits), tolerance=1, min_t=factor.last_t + 1):
        return False
    factor.last_t = totp.t()
    return True


def _is_recovery(factor: SecondFactor, text: str) -> bool:
    given = _digest(text)
    left = [digest for digest in factor.recovery if not secrets.compare_digest(bytes(digest), given)]
    used, factor.recovery = len(left) < len(factor.recovery), left
    return used


def _new_codes(factor: SecondFactor) -> list[str]:
    codes = [base64.b32encode(secrets.token_bytes(CODE_BYTES)).decode() for _ in range(RECOVERY_CODES)]
    factor.recovery = [_digest(code) for code in codes]
    factor.save(update_fields=["recovery"])
    return ["-".join(code[at : at + 4] for at in range(0, len(code), 4)) for code in codes]


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()
