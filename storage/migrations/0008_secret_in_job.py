from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("storage", "0007_bucket_verified"),
    ]

    operations = [
        migrations.AddField(
            model_name="bucket",
            name="allow_secret_in_job",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Workers of dialect dekita are given this key and its secret, and put files here themselves.",
                verbose_name="secret in jobs",
            ),
        ),
    ]
