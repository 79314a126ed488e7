"""manage.py overflow NAME [--to OTHER …]: where else an endpoint's jobs may run, and when. Without --to it lists that.

What is not said of one that there is already stays as it is. --drop takes it away: jobs that wait there come back.
"""

from argparse import ArgumentParser, BooleanOptionalAction
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.errors import Refused
from jobs.endpoints import drop_overflow, set_overflow, ways_of
from jobs.models import Overflow

FIELDS = ("position", "unhealthy", "throttled", "over_budget", "wait_s", "share_percent")


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the endpoint that clients address")
        parser.add_argument("--to", help="the endpoint whose workers may run its jobs")
        parser.add_argument("--position", type=int, help="the lowest that can take a job gets it (1)")
        boolean: dict[str, Any] = {"action": BooleanOptionalAction, "default": None}
        parser.add_argument("--unhealthy", **boolean, help="when no worker takes its jobs, or RunPod does not (yes)")
        parser.add_argument("--throttled", **boolean, help="when RunPod has no GPU free for it (yes)")
        parser.add_argument("--over-budget", **boolean, help="when its budget of the month is used up (yes)")
        parser.add_argument(
            "--wait", dest="wait_s", help="a job that has waited for so many seconds; none: not for that"
        )
        parser.add_argument("--share", dest="share_percent", type=float, help="so many of 100 jobs in any case (0)")
        parser.add_argument("--drop", action="store_true", help="not there any more")

    def handle(self, *args: Any, **options: Any) -> None:
        name, to = options["name"], options["to"]
        given = {field: options[field] for field in FIELDS if options[field] is not None}
        if not to and (given or options["drop"]):
            raise CommandError("Say where to, by --to.")
        if "wait_s" in given:
            given["wait_s"] = self._seconds(given["wait_s"])
        try:
            if options["drop"]:
                drop_overflow(name, to)
            elif to:
                set_overflow(name, to, **given)
            ways = ways_of(name)
        except Refused as error:
            raise CommandError(error.error) from error
        for way in ways:
            self.stdout.write(f"{way.position}. {name} to {way.to.name}: {told(way)}")
        if not ways:
            self.stdout.write(f"{name} overflows nowhere.")

    def _seconds(self, text: str) -> int | None:
        if text == "none":
            return None
        if not text.isascii() or not text.isdigit():
            raise CommandError(f"--wait must be a number of seconds or none, not {text!r}.")
        return int(text)


def told(way: Overflow) -> str:
    when = [
        "when it is unhealthy" if way.unhealthy else "",
        "when it is throttled" if way.throttled else "",
        "when its budget is used up" if way.over_budget else "",
        "" if way.wait_s is None else f"what waited for {way.wait_s} s",
        f"{way.share_percent:g} of 100 jobs in any case" if way.share_percent else "",
    ]
    return ", ".join(filter(None, when)) or "never"
