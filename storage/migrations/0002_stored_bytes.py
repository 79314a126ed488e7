from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("storage", "0001_initial"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="blob",
            index=models.Index(
                condition=models.Q(("bucket__isnull", True), ("of_request", False), ("state", "kept")),
                fields=["tenant"],
                include=("bytes",),
                name="blob_stored",
            ),
        ),
    ]
