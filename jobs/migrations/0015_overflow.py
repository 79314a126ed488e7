import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_rate_windows"),
        ("jobs", "0014_deletions"),
        ("storage", "0008_secret_in_job"),
    ]

    operations = [
        migrations.CreateModel(
            name="Overflow",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "position",
                    models.PositiveSmallIntegerField(default=1, help_text="The lowest that can take a job gets it."),
                ),
                (
                    "unhealthy",
                    models.BooleanField(default=True, help_text="When no worker takes its jobs, or RunPod does not."),
                ),
                ("throttled", models.BooleanField(default=True, help_text="When RunPod has no GPU free for it.")),
                (
                    "over_budget",
                    models.BooleanField(default=True, help_text="When its budget of the month is used up."),
                ),
                (
                    "wait_s",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="A job that has waited for so long. Empty: not for that.",
                        null=True,
                        verbose_name="wait in s",
                    ),
                ),
                (
                    "share_percent",
                    models.FloatField(
                        default=0,
                        help_text="Of all jobs, whatever state it is in: to try another fleet.",
                        verbose_name="share in %",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "overflow",
                "ordering": ["position", "id"],
            },
        ),
        migrations.RemoveConstraint(
            model_name="grant",
            name="grant_once",
        ),
        migrations.AddField(
            model_name="endpoint",
            name="cost_a_month",
            field=models.DecimalField(
                blank=True,
                decimal_places=2,
                help_text="Likewise.",
                max_digits=14,
                null=True,
                verbose_name="cost a month",
            ),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="gpu_s_a_month",
            field=models.PositiveBigIntegerField(
                blank=True,
                help_text="Of all tenants, by the calendar, UTC. Empty: no limit.",
                null=True,
                verbose_name="GPU-seconds a month",
            ),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="spent_at",
            field=models.DateTimeField(
                editable=False, help_text="When that was found used up; it holds to the end of that month.", null=True
            ),
        ),
        migrations.AddField(
            model_name="grant",
            name="overflow_of",
            field=models.ForeignKey(
                editable=False,
                help_text="Empty: its tenant's own.",
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="stand_ins",
                to="jobs.grant",
            ),
        ),
        migrations.AddField(
            model_name="grant",
            name="share_below",
            field=models.FloatField(db_default=0.0, editable=False, help_text="to here begin here."),
        ),
        migrations.AddField(
            model_name="grant",
            name="share_from",
            field=models.FloatField(
                db_default=0.0, editable=False, help_text="Of a stand-in: of 100 new jobs, from here"
            ),
        ),
        migrations.AddField(
            model_name="runpodendpoint",
            name="looked_at",
            field=models.DateTimeField(editable=False, help_text="When its health was last asked.", null=True),
        ),
        migrations.AddField(
            model_name="runpodendpoint",
            name="throttled",
            field=models.BooleanField(db_default=False, editable=False, help_text="No GPU was free for it there."),
        ),
        migrations.AlterField(
            model_name="event",
            name="kind",
            field=models.CharField(
                choices=[
                    ("created", "Created"),
                    ("handed", "handed to a worker"),
                    ("started", "Started"),
                    ("completed", "Completed"),
                    ("failed", "Failed"),
                    ("cancelled", "Cancelled"),
                    ("timed_out", "timed out"),
                    ("lost", "lost by its worker"),
                    ("handed_back", "handed back"),
                    ("undone", "hand-over undone"),
                    ("retried", "Retried"),
                    ("moved", "moved to other workers"),
                    ("output", "output ready"),
                    ("ignored", "news ignored"),
                    ("noted", "Noted"),
                ],
                max_length=11,
            ),
        ),
        migrations.AddIndex(
            model_name="usage",
            index=models.Index(fields=["endpoint", "day"], name="usage_of_endpoint"),
        ),
        migrations.AddConstraint(
            model_name="grant",
            constraint=models.UniqueConstraint(
                condition=models.Q(("overflow_of__isnull", True)), fields=("tenant", "endpoint"), name="grant_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="grant",
            constraint=models.UniqueConstraint(
                condition=models.Q(("overflow_of__isnull", False)),
                fields=("overflow_of", "endpoint"),
                name="grant_stand_in_once",
            ),
        ),
        migrations.AddField(
            model_name="overflow",
            name="endpoint",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="overflows",
                to="jobs.endpoint",
            ),
        ),
        migrations.AddField(
            model_name="overflow",
            name="to",
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="+", to="jobs.endpoint"),
        ),
        migrations.AddConstraint(
            model_name="overflow",
            constraint=models.UniqueConstraint(fields=("endpoint", "to"), name="overflow_once"),
        ),
        migrations.AddConstraint(
            model_name="overflow",
            constraint=models.CheckConstraint(
                condition=models.Q(("endpoint", models.F("to")), _negated=True),
                name="overflow_elsewhere",
                violation_error_message="An endpoint cannot overflow to itself.",
            ),
        ),
        migrations.AddConstraint(
            model_name="overflow",
            constraint=models.CheckConstraint(
                condition=models.Q(("share_percent__gte", 0), ("share_percent__lte", 100)),
                name="overflow_share_is_percent",
                violation_error_message="A share is 0 to 100 %%.",
            ),
        ),
    ]
