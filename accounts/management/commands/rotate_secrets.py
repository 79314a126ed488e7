"""manage.py rotate_secrets: seals every stored secret with the first key of HEARTH_SEAL_KEYS, while all goes on."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.errors import counted
from accounts.rotation import reseal_all


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--discard", action="store_true", help="replace secrets that no key opens by empty ones, to be entered anew"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        broken: list[str] = []
        changed = 0
        for done in reseal_all(discard=options["discard"]):
            changed += done.changed
            self.stdout.write(f"{done.column}: {done.resealed} sealed anew, {done.already} were already")
            broken += [f"{done.column} of {row}" for row in done.broken]
        for name in broken:
            self.stdout.write(f"{'discarded' if options['discard'] else 'opens with no key'}: {name}")
        if broken and not options["discard"]:
            opens = "opens" if len(broken) == 1 else "open"
            raise CommandError(
                f"{counted(len(broken), 'secret')} {opens} with none of HEARTH_SEAL_KEYS. Add the key that sealed them"
                " behind the first, or give --discard and enter them anew. Drop no key yet."
            )
        if changed:
            raise CommandError(f"Somebody else has changed {counted(changed, 'secret')} meanwhile. Run it again.")
        self.stdout.write("The first key alone opens all: the others may be dropped.")
