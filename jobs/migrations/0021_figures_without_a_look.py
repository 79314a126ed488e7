from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0020_figures"),
    ]

    operations = [
        migrations.AlterField(
            model_name="figures",
            name="queued",
            field=models.BigIntegerField(
                help_text="The most of all looks in this time. Empty: there was none.", null=True
            ),
        ),
        migrations.AlterField(
            model_name="figures",
            name="running",
            field=models.BigIntegerField(help_text="Likewise.", null=True),
        ),
    ]
