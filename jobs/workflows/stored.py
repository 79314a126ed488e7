"""What a tenant does with its stored workflows: makes them and versions of them, moves the current one, archives,
deletes. The verbs own their transactions; they take the tenant, so that another's workflow is 404."""

from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max, QuerySet
from django.db.models.functions import Now

from accounts import sql, tenants
from accounts.errors import Refused, bad_request, counted, not_found
from accounts.models import slug
from jobs.models import Workflow, WorkflowVersion
from jobs.workflows.definition import Definition, define

MOST_WORKFLOWS, MOST_VERSIONS = 500, 1000
RESERVED = {"propose"}  # what the API has beside names


def of_tenant(tenant_id: UUID) -> QuerySet[Workflow]:
    return Workflow.all_tenants.filter(tenant_id=tenant_id, deleted_at=None)


def one(tenant_id: UUID, name: str, *, lock: bool = False) -> Workflow:
    """Raises Refused(404)."""
    rows = of_tenant(tenant_id).filter(name=name.replace("\0", "\ufffd"))
    found = (rows.select_for_update(no_key=True) if lock else rows).first()
    if found is None:
        raise not_found(f"There is no workflow {name[:63]!r} of yours.")
    return found


def version(workflow: Workflow, number: int | None = None) -> WorkflowVersion:
    """Without a number the current one. Raises Refused(404)."""
    number = workflow.current if number is None else number
    found: WorkflowVersion | None = of_workflow(workflow).filter(number=number or 0).first()
    if found is None:
        raise _no_version(workflow, number)
    return found


def of_workflow(workflow: Workflow) -> QuerySet[WorkflowVersion]:
    return WorkflowVersion.all_tenants.select_related("workflow").filter(workflow=workflow)


def _no_version(workflow: Workflow, number: int | None) -> Refused:
    error = f"The workflow {workflow.name!r} has no version {number}; its current one is {workflow.current}."
    return not_found(error)


def create(
    tenant_id: UUID,
    name: str,
    graph: Any,
    parameters: Any,
    by: str,
    *,
    title: str = "",
    description: str = "",
    note: str = "",
) -> Workflow:
    """With version 1. Raises Refused: 400, 409 if the name is taken or there are too many, 410."""
    workflow = Workflow(tenant_id=tenant_id, name=name, title=title, description=description)
    definition = define(graph, parameters)
    with transaction.atomic():
        tenants.hold(tenant_id)
        check_name(tenant_id, name)
        if of_tenant(tenant_id).count() >= MOST_WORKFLOWS:
            error = f"You have {MOST_WORKFLOWS} workflows, which is the most. Delete some first."
            raise Refused(409, "too_many_workflows", error)
        workflow.save(force_insert=True)
        _add(workflow, 1, definition, note, by)
    workflow.refresh_from_db(from_queryset=Workflow.all_tenants.all())
    return workflow


def check_name(tenant_id: UUID, name: str) -> None:
    """Whether a workflow may have it from now on. Raises Refused: 400, 409."""
    try:
        slug(name)
    except ValidationError as error:
        raise bad_request(f"`name` {name[:100]!r}: {' '.join(error.messages)}", "bad_name") from error
    if name in RESERVED:
        raise bad_request(f"`name`: {name!r} is a word of the API. Take another.", "bad_name")
    if of_tenant(tenant_id).filter(name=name).exists():
        raise Refused(
            409, "exists", f"You have a workflow {name!r} already. Add a version to it, or take another name."
        )


def _add(workflow: Workflow, number: int, definition: Definition, note: str, by: str) -> WorkflowVersion:
    made: WorkflowVersion = WorkflowVersion.all_tenants.create(
        tenant_id=workflow.tenant_id,
        workflow=workflow,
        number=number,
        graph=definition.graph,
        parameters=definition.parameters,
        note=note,
        made_by=by[:200],
    )
    made.refresh_from_db(from_queryset=WorkflowVersion.all_tenants.select_related("workflow"))
    return made


def add_version(
    tenant_id: UUID, name: str, graph: Any, parameters: Any, by: str, *, note: str = "", current: bool = True
) -> WorkflowVersion:
    """The next one, which its name means from now on, if it is to be `current`. Raises Refused: 400, 404, 409."""
    definition = define(graph, parameters)
    with transaction.atomic():
        workflow = one(tenant_id, name, lock=True)
        number = of_workflow(workflow).aggregate(last=Max("number"))["last"] + 1
        if number > MOST_VERSIONS:
            error = f"The workflow {name!r} has {counted(MOST_VERSIONS, 'version')}, which is the most. Make a new one."
            raise Refused(409, "too_many_versions", error)
        if current:
            workflow.current = number
            workflow.save(update_fields=["current"])
        return _add(workflow, number, definition, note, by)


def change(
    tenant_id: UUID,
    name: str,
    *,
    new_name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    current: int | None = None,
    archived: bool | None = None,
) -> Workflow:
    """What is None stays. Raises Refused: 400, 404, 409, 410."""
    with transaction.atomic():
        tenants.hold(tenant_id)
        workflow = one(tenant_id, name, lock=True)
        if new_name is not None and new_name != name:
            check_name(tenant_id, new_name)
            workflow.name = new_name
        workflow.title = workflow.title if title is None else title
        workflow.description = workflow.description if description is None else description
        if current is not None:
            if not of_workflow(workflow).filter(number=current).exists():
                raise bad_request(f"`current`: {_no_version(workflow, current).error}", "unknown_version")
            workflow.current = current
        workflow.save(force_update=True)
        if archived is not None and archived != bool(workflow.archived_at):
            Workflow.all_tenants.filter(pk=workflow.pk).update(archived_at=Now() if archived else None)
    workflow.refresh_from_db(from_queryset=Workflow.all_tenants.all())
    return workflow


# What is left of those deleted before, where nobody can be about to make a job of one any more.
UNNAMED = """
DELETE FROM jobs_workflow w WHERE w.tenant_id = %s AND w.deleted_at < clock_timestamp() - interval '1 day'
   AND NOT EXISTS (SELECT 1 FROM jobs_job j WHERE j.workflow_id = w.id)"""


def remove(tenant_id: UUID, name: str) -> None:
    """Its versions go and its name is free; jobs that ran it still say so. Raises Refused(404)."""
    with transaction.atomic():
        workflow = one(tenant_id, name, lock=True)
        gone = {"deleted_at": Now(), "current": None, "title": "", "description": ""}
        Workflow.all_tenants.filter(pk=workflow.pk).update(**gone)
        of_workflow(workflow).delete()
        sql.run(UNNAMED, [tenant_id])
