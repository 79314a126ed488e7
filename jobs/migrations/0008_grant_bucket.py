import django.db.models.deletion
from django.db import migrations, models

# A grant's bucket is its tenant's, whoever writes it: the statement that makes a job joins both, and would find none.
OF_TENANT = """
ALTER TABLE jobs_grant ADD CONSTRAINT grant_bucket_of_tenant FOREIGN KEY (tenant_id, bucket_id)
      REFERENCES storage_bucket (tenant_id, id) DEFERRABLE INITIALLY DEFERRED"""


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0007_webhooks"),
        ("storage", "0005_buckets"),
    ]

    operations = [
        migrations.AddField(
            model_name="grant",
            name="bucket",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                help_text="Where files of jobs at this endpoint go. Empty: the tenant's default.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="storage.bucket",
            ),
        ),
        migrations.RunSQL(OF_TENANT, "ALTER TABLE jobs_grant DROP CONSTRAINT grant_bucket_of_tenant"),
    ]
