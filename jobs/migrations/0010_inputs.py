from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0009_previews_and_outputs"),
    ]

    operations = [
        migrations.AddField(
            model_name="payload",
            name="inputs",
            field=models.BinaryField(
                help_text="JSON: where the files are that the input names (jobs/inputs.py).", null=True
            ),
        ),
        migrations.AddField(
            model_name="payload",
            name="moved_bytes",
            field=models.BigIntegerField(
                db_default=0, help_text="Of files that came in the request and are not in it."
            ),
        ),
    ]
