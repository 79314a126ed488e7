from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_limits"),
    ]

    operations = [
        migrations.CreateModel(
            name="RateWindow",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "scope", "began_at", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("scope", models.CharField(help_text="Whose, at which endpoint, of which kind.", max_length=200)),
                ("began_at", models.DateTimeField()),
                ("taken", models.BigIntegerField(help_text="Permits that processes took, or asked for in vain.")),
            ],
        ),
        migrations.RunSQL(  # after a crash nobody misses what was counted before
            "ALTER TABLE accounts_ratewindow SET UNLOGGED", "ALTER TABLE accounts_ratewindow SET LOGGED"
        ),
    ]
