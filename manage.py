"""Django's command line, for the instance that HEARTH_HOME or DATABASE_URL names."""

import os
import sys

from django.core.management import execute_from_command_line

from hearth.local.database import reachable_database

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hearth.settings")
    with reachable_database():
        execute_from_command_line(sys.argv)
