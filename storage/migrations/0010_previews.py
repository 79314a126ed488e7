from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("storage", "0009_retention"),
    ]

    operations = [
        migrations.AddField(
            model_name="asset",
            name="preview",
            field=models.BooleanField(
                db_default=False, default=False, help_text="A small picture is stored beside it."
            ),
        ),
        migrations.AddField(
            model_name="blob",
            name="preview_bytes",
            field=models.IntegerField(
                db_default=0, editable=False, help_text="Of the small picture beside it; 0: it has none."
            ),
        ),
    ]
