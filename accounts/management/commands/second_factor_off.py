"""manage.py second_factor_off USERNAME: for a user who has lost phone and recovery codes; he then enrols anew."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import second_factor
from accounts.models import User


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['username']!r}.")
        was_on = user.second_factor_id is not None
        second_factor.turn_off(user)
        self.stdout.write(f"{user} signs in by password alone" + (" from now on." if was_on else ", as before."))
