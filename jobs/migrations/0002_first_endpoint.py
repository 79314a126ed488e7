"""The endpoint every instance has, and how often the hot tables are cleaned of dead rows."""

from typing import Any

from django.db import migrations


def first_endpoint(apps: Any, schema_editor: Any) -> None:
    apps.get_model("jobs", "Endpoint").objects.get_or_create(name="comfyui")


HOT = "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 1"


class Migration(migrations.Migration):
    dependencies = [("jobs", "0001_initial")]
    operations = [
        migrations.RunPython(first_endpoint, migrations.RunPython.noop),
        *(
            migrations.RunSQL(
                f"ALTER TABLE {table} SET ({HOT})", f"ALTER TABLE {table} RESET (autovacuum_vacuum_scale_factor)"
            )
            for table in ("jobs_job", "jobs_attempt", "jobs_worker")
        ),
    ]
