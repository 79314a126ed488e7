from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0012_runpod"),
    ]

    operations = [
        migrations.AlterField(
            model_name="endpoint",
            name="dialect",
            field=models.CharField(
                choices=[
                    ("hearth", "hearth: Hearth's own worker"),
                    ("dekita", "dekita: the worker of dekita's runpod-serverless-comfyui-worker"),
                    ("worker-comfyui", "worker-comfyui: RunPod's own"),
                    ("raw", "raw: any JSON, untouched"),
                ],
                default="hearth",
                max_length=20,
            ),
        ),
    ]
