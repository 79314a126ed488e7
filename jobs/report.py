"""What tenants used in a month, as CSV for invoices. Days and months are UTC; an attempt counts on the day it ended."""

import csv
import re
from collections.abc import Collection, Iterable, Iterator
from datetime import date
from decimal import Decimal
from io import StringIO
from typing import Any
from unicodedata import normalize
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet, Sum

from accounts.errors import Refused, bad_request
from accounts.models import ApiKey, Tenant
from jobs.models import Usage

COUNTS = ("completed", "failed", "cancelled", "timed_out", "attempts", "lost")
SUMS = (*COUNTS, "gpu_ms", "unbilled_gpu_ms", "cost", "bytes_in", "bytes_out")
OWNER = ("tenant", "endpoint", "api_key", "api_key_name")
COLUMNS = (*COUNTS, "gpu_seconds", "unbilled_gpu_seconds", "cost", "currency", "bytes_in", "bytes_out")


def month_of(text: str) -> date:
    """The first day of "2026-10". Raises Refused(400)."""
    if not re.fullmatch(r"2[0-9]{3}-(0[1-9]|1[0-2])", text):
        raise bad_request(f"{text!r} is no month. Write it as 2026-10.")
    return date.fromisoformat(f"{text}-01")


def month_before(day: date) -> date:
    """The first day of the month before that of `day`."""
    return date(day.year - (day.month == 1), (day.month + 10) % 12 + 1, 1)


def month_after(day: date) -> date:
    return date(day.year + (day.month == 12), day.month % 12 + 1, 1)


def tenant_named(name: str, among: QuerySet[Tenant] | None = None) -> Tenant:
    """Raises Refused(404)."""
    found = (Tenant.objects.all() if among is None else among).filter(name=name).first()
    if found is None:
        raise Refused(404, "not_found", f"There is no tenant {name!r}.")
    return found


def report(month: date, tenants: Collection[Tenant | UUID] | None = None, *, daily: bool = False) -> str:
    """CSV with a header: a line for each tenant, endpoint and key, and day if `daily`. None: of all tenants."""
    usage = Usage.all_tenants.all() if tenants is None else Usage.all_tenants.filter(tenant__in=tenants)
    sums = _sums(month, usage, daily)
    out = StringIO(newline="")
    writer = csv.writer(out)  # its lines end with CR LF, as RFC 4180 has it; else it would not quote a CR in a name
    writer.writerow((*OWNER, "day" if daily else "month", *COLUMNS))
    writer.writerows(_lines(sums, month))
    return out.getvalue()


def used(month: date, tenant: Tenant, only: Q, *, daily: bool) -> Iterator[dict[str, Any]]:
    """The same of one tenant, of `only` these rows, with GPU time in ms."""
    sums = list(_sums(month, Usage.objects.of(tenant).filter(only), daily))
    prefixes = dict(ApiKey.all_tenants.filter(tenant=tenant).values_list("pk", "prefix"))
    for row in sums:
        key = prefixes.get(row["api_key_id"])
        when = {"day": row["day"].isoformat()} if daily else {"month": f"{month:%Y-%m}"}
        numbers = {name: row[f"all_{name}"] for name in SUMS}
        yield {"endpoint": row["endpoint__name"], "key": key, **when, **numbers, "cost": str(numbers["cost"])}


def _sums(month: date, usage: QuerySet[Usage], daily: bool) -> Iterable[dict[str, Any]]:
    of_month = usage.filter(day__gte=month, day__lt=month_after(month))
    by = ("tenant__name", "endpoint__name", "api_key_id", *(("day",) if daily else ()))
    sums: Iterable[dict[str, Any]] = (
        of_month.values(*by).annotate(**{f"all_{name}": Sum(name) for name in SUMS}).order_by(*by)
    )
    return sums


def _lines(sums: Iterable[dict[str, Any]], month: date) -> Iterator[list[Any]]:
    found = list(sums)
    keys = ApiKey.all_tenants.in_bulk({row["api_key_id"] for row in found} - {None})
    for row in found:
        key = keys.get(row["api_key_id"])
        when = row["day"].isoformat() if "day" in row else f"{month:%Y-%m}"
        used = {name: row[f"all_{name}"] for name in SUMS}
        yield [
            *(
                row["tenant__name"],
                row["endpoint__name"],
                f"hth_{key.prefix}" if key else "",
                plain(key.name if key else ""),
            ),
            *(when, *(used[name] for name in COUNTS), _seconds(used["gpu_ms"]), _seconds(used["unbilled_gpu_ms"])),
            *(used["cost"], settings.CURRENCY, used["bytes_in"], used["bytes_out"]),
        ]


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def plain(text: str) -> str:
    """Free text, as a key's name: what some spreadsheet would take for a formula gets a quotation mark. Full-width
    signs are taken for the plain ones."""
    return f"'{text}" if normalize("NFKC", text).startswith(FORMULA) else text


def _seconds(ms: int) -> Decimal:
    return Decimal(ms) / 1000
