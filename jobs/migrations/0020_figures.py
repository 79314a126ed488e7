import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models


def counts(help_text):
    return django.contrib.postgres.fields.ArrayField(
        base_field=models.BigIntegerField(), help_text=help_text, size=None
    )


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0005_manage_scope"),
        ("jobs", "0019_run_again"),
    ]

    operations = [
        migrations.CreateModel(
            name="Figures",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "span",
                    models.CharField(
                        choices=[("fresh", "Fresh"), ("minute", "Minute"), ("hour", "Hour"), ("day", "Day")],
                        max_length=6,
                    ),
                ),
                ("at", models.DateTimeField(help_text="Its beginning.")),
                ("completed", models.BigIntegerField(db_default=0)),
                ("failed", models.BigIntegerField(db_default=0)),
                ("cancelled", models.BigIntegerField(db_default=0)),
                ("timed_out", models.BigIntegerField(db_default=0)),
                ("gpu_ms", models.BigIntegerField(db_default=0, help_text="Billed, of attempts let go of.")),
                ("delays", counts("Of ended jobs, how many in each bucket.")),
                ("executions", counts("Likewise.")),
                ("queued", models.BigIntegerField(db_default=0, help_text="The most of all looks in this time.")),
                ("running", models.BigIntegerField(db_default=0, help_text="Likewise.")),
                (
                    "endpoint",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="jobs.endpoint",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "figures",
                "indexes": [models.Index(fields=["span", "at"], name="figures_of_span")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "at", "endpoint", "span"), name="figures_once", nulls_distinct=False
                    )
                ],
            },
        ),
        # the newest rows are written again and again
        migrations.RunSQL("ALTER TABLE jobs_figures SET (fillfactor = 70)", migrations.RunSQL.noop),
    ]
