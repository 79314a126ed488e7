"""How lines of the audit trail are written on a page."""

from typing import Any

from django.db.models import QuerySet
from django.utils.html import format_html, format_html_join

from accounts.audit import Change

SHOWN = 100


def trail(changes: QuerySet[Change]) -> dict[str, Any]:
    """A table of the newest."""
    found = changes.order_by("-id")[:SHOWN]
    rows = [(f"{line.at:%Y-%m-%d %H:%M:%S}", line.who, line.address or "-", line.did, told(line)) for line in found]
    return {"headers": ["At (UTC)", "Who", "From", "What", "Changes"], "rows": rows}


def told(change: Change) -> str:
    """From what to what, a field a line."""
    lines = ((name, _text(before), _text(after)) for name, (before, after) in change.fields.items())
    text = format_html_join("", "<div><b>{}</b>: {} → {}</div>", lines)
    return format_html('<div class="text-xs break-all">{}</div>', text) if change.fields else "-"


def _text(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)
