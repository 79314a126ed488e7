"""Makes the tenants of a run: `python -m tests.chaos.tenants` reads their plans on its standard input and prints their
API keys with the secrets of their webhooks, as JSON. A process of its own, since it reads the instance's settings."""

import json
import os
import sys
from typing import Any

import django

from tests.chaos.plan import ENDPOINT


def make(number: int, plan: dict[str, Any]) -> tuple[str, str]:
    """The API key and the secret of the tenant of that number."""
    from jobs.models import Grant
    from jobs.report import tenant_named
    from jobs.tenants import create_tenant
    from jobs.webhooks.register import first_secret

    made = create_tenant(f"chaos-{number}", ENDPOINT)
    Grant.all_tenants.filter(tenant__name=made.tenant).update(**plan)
    return made.api_key, first_secret(tenant_named(made.tenant))


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hearth.settings")
    django.setup()
    print(json.dumps([make(number, plan) for number, plan in enumerate(json.load(sys.stdin))]))
