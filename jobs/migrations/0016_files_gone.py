from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0015_overflow"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="files_gone_at",
            field=models.DateTimeField(editable=False, help_text="Of its files one was, or is to be.", null=True),
        ),
    ]
