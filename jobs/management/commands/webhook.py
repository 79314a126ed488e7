"""manage.py webhook VERB: tenants' webhooks and secrets, and what became of deliveries: to test them, to send again."""

import json
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.errors import Refused, not_found
from jobs.ids import parse_job_id
from jobs.models import Delivery, DeliveryTry, Webhook
from jobs.models.webhook import address
from jobs.report import tenant_named
from jobs.states import News
from jobs.webhooks import look, register
from jobs.webhooks.deliver import is_overdue

Options = dict[str, Any]
Row = dict[str, Any]
POLL_S = 0.1


def moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is no time. Write it as 2026-11-25 or 2026-11-25T14:30.") from error
    return found.replace(tzinfo=found.tzinfo or UTC)


def hours(text: str) -> timedelta:
    try:
        found = timedelta(hours=float(text))
    except (ValueError, OverflowError) as error:
        raise ArgumentTypeError(f"{text!r} is no number of hours.") from error
    if found < timedelta(0):
        raise ArgumentTypeError("It must be 0 or more.")
    return found


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        self.verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        made = self.verb("add", add, "register a URL of a tenant; its first secret is shown this once", "tenant", "url")
        usual = f"{', '.join(News.values)} (default: {', '.join(register.ENDS)})"
        made.add_argument("kinds", nargs="*", metavar="KIND", help=usual)
        self.verb("list", webhooks, "all webhooks").add_argument("--tenant", help="only this one's")
        made = self.verb("roll", roll, "a new secret for a tenant, or its first; it is shown this once", "tenant")
        made.add_argument(
            "--overlap", type=hours, default="24", metavar="HOURS", help="the old one still holds (default: 24)"
        )
        self.verb("enable", enable, "send news there, with a clean record", "webhook")
        self.verb("disable", disable, "send no more news there", "webhook")
        self.verb("remove", remove, "forget it and its deliveries", "webhook")
        made = self.verb("test", test, "send a sample, to a disabled one too, and show what is answered", "webhook")
        made.add_argument("--wait", type=float, default=30, metavar="S", help="for the answer (default: 30)")
        self.add_deliveries()

    def add_deliveries(self) -> None:
        found = self.verb("deliveries", deliveries, "the newest first, each with its last try")
        found.add_argument("--job", help="only of this job")
        found.add_argument("--state", choices=Delivery.State.values)
        found.add_argument("--overdue", action="store_true", help="due for a minute, and nobody sends them")
        found.add_argument("--limit", type=int, default=50)
        self.verb("tries", tries, "of a delivery, the oldest first", "delivery")
        again = self.verb("replay", replay, "send again: these, by their webhook-id, or all that failed since a time")
        again.add_argument("deliveries", nargs="*", metavar="DELIVERY")
        again.add_argument("--failed-since", type=moment, metavar="TIME", help="2026-11-25 or 2026-11-25T14:30 (UTC)")
        for parser in (found, again):
            parser.add_argument("--tenant", help="only this one's")
            parser.add_argument("--webhook", help="only of this one")

    def verb(self, name: str, do: Callable[[Options], Row | list[Row]], text: str, *given: str) -> ArgumentParser:
        made: ArgumentParser = self.verbs.add_parser(name, help=text, description=text)
        for argument in given:
            made.add_argument(argument)
        made.add_argument("--json", action="store_true", help="print each as a JSON object on a line")
        made.set_defaults(do=do)
        return made

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = options["do"](options)
        except Refused as error:
            raise CommandError(error.error) from error
        for line in lines(found, as_json=options["json"]):
            self.stdout.write(line)
        if options["verb"] == "test" and not 200 <= (found["status"] or 0) < 300:
            raise CommandError("The receiver has not taken it.")


def lines(found: Row | list[Row], *, as_json: bool) -> Iterator[str]:
    """One thing by the names of its values, several as a table."""
    rows = [found] if isinstance(found, dict) else found
    if as_json:
        yield from (json.dumps(row) for row in rows)
    elif isinstance(found, dict):
        yield from (f"{name}: {plain(value)}" for name, value in found.items())
    else:
        yield from table([[*row] for row in rows[:1]] + [[plain(value) for value in row.values()] for row in rows])


def plain(value: Any) -> str:
    """On one line, and without what a receiver's answer might do to a terminal."""
    text = ",".join(value) if isinstance(value, list) else "" if value is None else str(value)
    return "".join(each if each.isprintable() else " " for each in text) or "-"


def table(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if not cells:
        yield "none"


def add(options: Options) -> Row:
    made = register.register(tenant_named(options["tenant"]), options["url"], options["kinds"] or register.ENDS)
    return webhook_row(made.webhook) | ({"secret": made.secret} if made.secret else {})


def webhooks(options: Options) -> list[Row]:
    found = Webhook.all_tenants.select_related("tenant").order_by("tenant__name", "pk")
    tenant = options["tenant"] and tenant_named(options["tenant"])
    return [webhook_row(webhook) for webhook in (found.filter(tenant=tenant) if tenant else found)]


def webhook_row(webhook: Webhook) -> Row:
    return {
        "webhook": str(webhook.pk),
        "tenant": webhook.tenant.name,
        "state": look.state_of(webhook),
        "kinds": webhook.kinds,
        "url": address(webhook.url),
        "why": webhook.disabled_why,
    }


def roll(options: Options) -> Row:
    return {"secret": register.roll_secret(tenant_named(options["tenant"]), options["overlap"])}


def enable(options: Options) -> Row:
    return _switch(options, True)


def disable(options: Options) -> Row:
    return _switch(options, False)


def _switch(options: Options, enabled: bool) -> Row:
    found = look.find_webhook(options["webhook"])
    return webhook_row(register.change(found.tenant, found.pk, enabled=enabled))


def remove(options: Options) -> Row:
    found = look.find_webhook(options["webhook"])
    register.remove(found.tenant, found.pk)
    return {"removed": str(found.pk)}


def test(options: Options) -> Row:
    found = look.find_webhook(options["webhook"])
    sent = register.send_test(found.tenant, found.pk)
    until = time.monotonic() + options["wait"]
    while not (tried := look.tries(sent).first()):
        if time.monotonic() > until:
            why = "no deliverer runs, or it is busy"
            raise CommandError(
                f"Nobody has sent it within {options['wait']:g} s: {why}. `tries {sent}` says more later."
            )
        time.sleep(POLL_S)
    return {"delivery": sent.message_id, **try_row(tried)}


def try_row(tried: DeliveryTry) -> Row:
    names = ("status", "ms", "answer", "error")
    return {"at": f"{tried.at:%Y-%m-%dT%H:%M:%SZ}", **{name: getattr(tried, name) for name in names}}


def deliveries(options: Options) -> list[Row]:
    which = owner(options) | ({"state": options["state"]} if options["state"] else {})
    if options["job"]:
        job = parse_job_id(options["job"])
        if job is None:
            raise not_found(f"There is no job {options['job']!r}.")
        which |= {"job": job.uuid}
    found = Delivery.all_tenants.filter(*([is_overdue()] if options["overdue"] else []), **which)
    newest = look.with_last_try(found).order_by("-pk")[: max(1, options["limit"])]
    return [delivery_row(delivery) for delivery in newest]


def owner(options: Options) -> dict[str, Any]:
    """The tenant and the webhook, if they were named."""
    tenant = {"tenant": tenant_named(options["tenant"])} if options["tenant"] else {}
    return tenant | ({"webhook": look.find_webhook(options["webhook"])} if options["webhook"] else {})


def delivery_row(delivery: Any) -> Row:
    return {
        "delivery": delivery.message_id,
        "tenant": delivery.tenant.name,
        "job": delivery.job and delivery.job.public_id,
        "kind": delivery.kind,
        "state": delivery.state,
        "tries": delivery.tries,
        "next_at": delivery.next_at and f"{delivery.next_at:%Y-%m-%dT%H:%M:%SZ}",
        "url": look.goes_to(delivery),
        "last_try": look.last_outcome(delivery),
    }


def tries(options: Options) -> list[Row]:
    return [try_row(tried) for tried in look.tries(look.find_delivery(options["delivery"]))]


def replay(options: Options) -> Row:
    since, named = options["failed_since"], options["deliveries"]
    if bool(since) == bool(named):
        raise CommandError("Name deliveries by their webhook-id, or give --failed-since: one of the two.")
    if since:
        return {"sent_again": register.replay_failed(since, **owner(options))}
    for found in [look.find_delivery(text) for text in named]:
        register.replay(found.tenant, found.pk)
    return {"sent_again": len(named)}
