import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.manager
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_rate_windows"),
        ("storage", "0002_stored_bytes"),
    ]

    operations = [
        migrations.CreateModel(
            name="Gone",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), db_index=True)),
            ],
            options={
                "abstract": False,
            },
            managers=[
                ("all_tenants", django.db.models.manager.Manager()),
            ],
        ),
        migrations.CreateModel(
            name="Hold",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("job_id", models.UUIDField(editable=False)),
            ],
        ),
        migrations.AddField(
            model_name="asset",
            name="expires_at",
            field=models.DateTimeField(blank=True, help_text="Empty: never.", null=True),
        ),
        migrations.AddField(
            model_name="asset",
            name="source",
            field=models.CharField(
                choices=[("upload", "Upload"), ("input", "Input"), ("output", "Output")], default="output", max_length=6
            ),
        ),
        migrations.AddField(
            model_name="blob",
            name="tried_at",
            field=models.DateTimeField(editable=False, help_text="When its object could not be deleted.", null=True),
        ),
        migrations.AlterField(
            model_name="blob",
            name="state",
            field=models.CharField(
                choices=[("pending", "Pending"), ("kept", "Kept"), ("dying", "Dying")], default="pending", max_length=7
            ),
        ),
        migrations.AddIndex(
            model_name="asset",
            index=models.Index(fields=["tenant", "-id"], name="asset_of_tenant"),
        ),
        migrations.AddIndex(
            model_name="asset",
            index=models.Index(fields=["tenant", "created_at"], name="asset_by_age"),
        ),
        migrations.AddIndex(
            model_name="asset",
            index=models.Index(
                condition=models.Q(("expires_at__isnull", False)), fields=["expires_at"], name="asset_expiry"
            ),
        ),
        migrations.AddIndex(
            model_name="blob",
            index=models.Index(condition=models.Q(("state", "dying")), fields=["tried_at"], name="blob_dying"),
        ),
        migrations.AddConstraint(
            model_name="blob",
            constraint=models.UniqueConstraint(
                condition=models.Q(("job_id__isnull", True), ("of_request", False), ("state", "kept")),
                fields=("tenant", "sha256"),
                name="blob_uploaded_bytes_once",
            ),
        ),
        migrations.AddField(
            model_name="gone",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="+", to="accounts.tenant"
            ),
        ),
        migrations.AddField(
            model_name="hold",
            name="blob",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="holds", to="storage.blob"
            ),
        ),
        migrations.AddConstraint(
            model_name="hold",
            constraint=models.UniqueConstraint(fields=("job_id", "blob"), name="hold_once"),
        ),
    ]
