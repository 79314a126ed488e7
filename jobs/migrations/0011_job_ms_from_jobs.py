from django.db import migrations, models

# Those that still have the number that every grant began with.
FORGET = "UPDATE jobs_grant SET job_ms = NULL WHERE job_ms = 1000"
BEGIN = "UPDATE jobs_grant SET job_ms = 1000 WHERE job_ms IS NULL"


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0010_inputs"),
    ]

    operations = [
        migrations.AlterField(
            model_name="grant",
            name="job_ms",
            field=models.FloatField(
                editable=False,
                help_text="GPU ms of its completed jobs, moving average. Empty: it has none yet.",
                null=True,
            ),
        ),
        migrations.RunSQL(FORGET, BEGIN),
    ]
