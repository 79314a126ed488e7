import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.manager
import uuid_utils.compat
from django.db import migrations, models

# What Django has no words for: a workflow's current version is one of its own, a version is its workflow's tenant's, and
# no version ever changes.
RULES = """
ALTER TABLE jobs_workflow ADD CONSTRAINT workflow_current_is_its_own FOREIGN KEY (id, current)
      REFERENCES jobs_workflowversion (workflow_id, number) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE jobs_workflowversion ADD CONSTRAINT workflow_version_of_tenant FOREIGN KEY (tenant_id, workflow_id)
      REFERENCES jobs_workflow (tenant_id, id) DEFERRABLE INITIALLY DEFERRED;
CREATE FUNCTION jobs_workflowversion_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a version of a workflow does not change' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER workflow_version_stays BEFORE UPDATE ON jobs_workflowversion
       FOR EACH ROW EXECUTE FUNCTION jobs_workflowversion_stays()"""
NO_RULES = """
DROP TRIGGER workflow_version_stays ON jobs_workflowversion;
DROP FUNCTION jobs_workflowversion_stays;
ALTER TABLE jobs_workflow DROP CONSTRAINT workflow_current_is_its_own;
ALTER TABLE jobs_workflowversion DROP CONSTRAINT workflow_version_of_tenant"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_key_endpoints"),
        ("jobs", "0016_files_gone"),
        ("storage", "0010_previews"),
    ]

    operations = [
        migrations.CreateModel(
            name="Workflow",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        max_length=63,
                        validators=[
                            django.core.validators.RegexValidator(
                                "\\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\Z", "1–63 of a–z, 0–9 and - (not at the ends)."
                            )
                        ],
                    ),
                ),
                ("title", models.CharField(blank=True, max_length=200)),
                ("description", models.TextField(blank=True, max_length=2000)),
                (
                    "current",
                    models.PositiveIntegerField(
                        default=1, help_text="The version that its name alone means.", null=True
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "archived_at",
                    models.DateTimeField(
                        blank=True, editable=False, help_text="From then on it is not run.", null=True
                    ),
                ),
                ("deleted_at", models.DateTimeField(editable=False, null=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        limit_choices_to={"deleted_at": None},
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="workflows",
                        to="accounts.tenant",
                    ),
                ),
            ],
            managers=[
                ("all_tenants", django.db.models.manager.Manager()),
            ],
        ),
        migrations.CreateModel(
            name="WorkflowVersion",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField(editable=False)),
                ("graph", models.TextField(help_text="ComfyUI's API format, as JSON.")),
                ("parameters", models.TextField(default="[]", help_text="JSON (jobs/workflows/parameters.py).")),
                ("note", models.CharField(blank=True, help_text="What is new in it.", max_length=500)),
                ("made_by", models.CharField(editable=False, max_length=200)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        editable=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.tenant",
                    ),
                ),
                (
                    "workflow",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="versions",
                        to="jobs.workflow",
                    ),
                ),
            ],
            managers=[
                ("all_tenants", django.db.models.manager.Manager()),
            ],
        ),
        migrations.AddField(
            model_name="job",
            name="workflow_version",
            field=models.IntegerField(help_text="Which of that workflow it was.", null=True),
        ),
        migrations.AddField(
            model_name="payload",
            name="params",
            field=models.BinaryField(help_text="JSON: of a stored workflow, what its parameters were.", null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="workflow",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="jobs",
                to="jobs.workflow",
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("workflow__isnull", False)), fields=["workflow", "-id"], name="job_of_workflow"
            ),
        ),
        migrations.AddConstraint(
            model_name="workflow",
            constraint=models.UniqueConstraint(fields=("tenant", "id"), name="workflow_of_tenant"),
        ),
        migrations.AddConstraint(
            model_name="workflow",
            constraint=models.UniqueConstraint(
                condition=models.Q(("deleted_at__isnull", True)), fields=("tenant", "name"), name="workflow_name_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="workflow",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("current__isnull", True), ("deleted_at__isnull", False)),
                    models.Q(("current__isnull", False), ("deleted_at__isnull", True)),
                    _connector="OR",
                ),
                name="workflow_current_unless_deleted",
            ),
        ),
        migrations.AddConstraint(
            model_name="workflowversion",
            constraint=models.UniqueConstraint(fields=("workflow", "number"), name="workflow_version_once"),
        ),
        migrations.RunSQL(RULES, NO_RULES),
    ]
