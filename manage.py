"""Django's command line, for the instance that HEARTH_HOME or DATABASE_URL names."""

import os
import sys

from django.core.management import execute_from_command_line


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hearth.settings")
    if os.environ.get("DATABASE_URL"):
        execute_from_command_line(sys.argv)
        return
    from hearth.local.database import reachable_database  # the embedded parts' packages, which an image has not

    with reachable_database():
        execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
