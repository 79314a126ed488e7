"""A job's input that names a stored workflow, made the whole graph that its worker gets.

Which version a name means is asked of the database each time. What a version is never changes, so each process keeps
some of those it has read.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings

from accounts import sql
from accounts.errors import Refused, bad_request
from jobs.graph.faults import near, quoted
from jobs.wire.bodies import Part, json_object, kind, split_object
from jobs.workflows.definition import Place, place_of
from jobs.workflows.faults import MAX_TOLD, Faults, Unfit
from jobs.workflows.parameters import Parameter, Type, Value
from worker.wire import file_names

NAMED = re.compile(r"(?P<name>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:@(?P<version>[1-9][0-9]{0,8}))?")
KEPT_VERSIONS = 128  # by a process, of at most 1 MiB each


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a job is made of that names a workflow. given: its input with the graph in place of the name, and without
    `params`. params: JSON, what each parameter was."""

    workflow: UUID
    version: int
    given: Part
    params: bytes


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A version. places: where in the graph each parameter goes, in their order."""

    graph: bytes
    parameters: tuple[Parameter, ...]
    places: tuple[tuple[Place, ...], ...]


def named(given: Any) -> re.Match[str] | None:
    """Which workflow and version an input names, if it names one."""
    workflow = given.get("workflow") if isinstance(given, dict) else None
    return NAMED.fullmatch(workflow) if isinstance(workflow, str) else None


def resolve(tenant_id: UUID, given: Part) -> Ran:
    """Of an input that names one. Raises Refused(400): `unknown_workflow`, `invalid_params`."""
    match = named(given.value)
    assert match
    workflow, version_id, number = _find(tenant_id, match["name"], match["version"])
    version = load(version_id)
    of, brought = f"{match['name']}@{number}", file_names(given.value)
    values = checked(version.parameters, given.value.get("params"), of, brought)
    _check_size(version, values, of)
    graph = filled(version, values)
    raw = {name: part.raw for name, part in split_object(given.raw).values.items() if name != "params"}
    raw["workflow"] = orjson.dumps(graph)
    value = {name: graph if name == "workflow" else given.value[name] for name in raw}
    return Ran(workflow=workflow, version=number, given=Part(value, json_object(raw)), params=orjson.dumps(values))


def _check_size(version: Loaded, values: Mapping[str, Value], of: str) -> None:
    """A value may go to many places. Raises Refused(413)."""
    placed = zip(version.parameters, version.places, strict=True)
    size = sum(len(places) * len(orjson.dumps(values.get(parameter.name))) for parameter, places in placed)
    if (whole := size + len(version.graph)) > settings.RUN_MAX_BYTES:
        error = f"With these `params` the workflow {of} has {whole} bytes; at most {settings.RUN_MAX_BYTES} are taken."
        raise Refused(413, "too_large", error)


FIND = """
SELECT w.id, v.id, v.number, w.current, to_char(w.archived_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
  FROM jobs_workflow w
  LEFT JOIN jobs_workflowversion v ON v.workflow_id = w.id AND v.number = coalesce(%(version)s::int, w.current)
 WHERE w.tenant_id = %(tenant)s AND w.name = %(name)s AND w.deleted_at IS NULL"""


def _find(tenant_id: UUID, name: str, version: str | None) -> tuple[UUID, int, int]:
    """(workflow, id of the version, its number). Raises Refused(400)."""
    row = sql.first(FIND, {"tenant": tenant_id, "name": name, "version": version and int(version)})
    if row is None:
        raise bad_request(f"`input.workflow`: {_unknown(tenant_id, name)}", "unknown_workflow")
    workflow, version_id, number, current, archived_at = row
    if archived_at:
        error = f"`input.workflow`: the workflow {name!r} was archived at {archived_at} and is not run."
        raise bad_request(error, "unknown_workflow")
    if version_id is None:
        error = f"`input.workflow`: the workflow {name!r} has no version {version}; its current one is {current}."
        raise bad_request(error, "unknown_workflow")
    return workflow, version_id, number


NAMES = """
SELECT name FROM jobs_workflow WHERE tenant_id = %s AND deleted_at IS NULL AND archived_at IS NULL ORDER BY name"""


def _unknown(tenant_id: UUID, name: str) -> str:
    names = [found for (found,) in sql.rows(NAMES, [tenant_id])]
    nearest = near(name, names)
    hint = f"near: {quoted(nearest)}" if nearest else f"you have {len(names) or 'none'}, see /api/v1/workflows"
    return f"there is no workflow {name!r} of yours; {hint}."


def is_stored(tenant_id: UUID, name: str) -> bool:
    return sql.first(FIND, {"tenant": tenant_id, "name": name, "version": None}) is not None


VERSION = "SELECT graph, parameters FROM jobs_workflowversion WHERE id = %s"


@lru_cache(KEPT_VERSIONS)
def load(version_id: int) -> Loaded:
    """By the id that no other version will ever have. Raises Refused(400) if it was deleted just now."""
    row = sql.first(VERSION, [version_id])
    if row is None:
        raise bad_request("`input.workflow`: this workflow was deleted.", "unknown_workflow")
    return loaded(*row)


def loaded(graph: str, parameters: str) -> Loaded:
    """Of what is stored."""
    whole, read = orjson.loads(graph), read_parameters(parameters)
    places = tuple(tuple(place_of(whole, path) for path in parameter.paths) for parameter in read)
    return Loaded(graph=graph.encode(), parameters=read, places=places)


def read_parameters(stored: str) -> tuple[Parameter, ...]:
    return tuple(Parameter.read(told) for told in orjson.loads(stored))


def checked(parameters: Collection[Parameter], given: Any, of: str, brought: Collection[str] = ()) -> dict[str, Value]:
    """What each parameter is, but for files that stay as they are in the graph. Raises Refused(400) with all that is
    wrong."""
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise bad_request(f"`input.params` must be an object of values by name, not {kind(given)}.", "invalid_params")
    faults, values = Faults(), dict[str, Value]()
    names = dict.fromkeys(parameter.name for parameter in parameters)
    known = f"it has {quoted(names)}" if names else "it has none at all"
    unknown = [name for name in given if name not in names]
    for name in unknown[:MAX_TOLD]:
        faults.add(name, Unfit("unknown", f"is not one of this workflow: {known}", word=name, among=names))
    faults.more(len(unknown[MAX_TOLD:]))
    for parameter in parameters:
        try:
            if (value := _value(parameter, given, brought)) is not None:
                values[parameter.name] = value
        except Unfit as fault:
            faults.add(parameter.name, fault)
    if faults:
        raise faults.refused("invalid_params", f"Workflow {of}: ")
    return values


def _value(parameter: Parameter, given: Mapping[str, Any], brought: Collection[str]) -> Value | None:
    if parameter.name in given:
        return parameter.taken(given[parameter.name], brought)
    if parameter.required:
        raise Unfit("required", f"is required: it must be {parameter.allowed}")
    return parameter.drawn() if parameter.type == Type.SEED else parameter.default


def filled(version: Loaded, values: Mapping[str, Value]) -> dict[str, Any]:
    """The graph with these values at their parameters' places, and nowhere else."""
    graph: dict[str, Any] = orjson.loads(version.graph)
    for parameter, places in zip(version.parameters, version.places, strict=True):
        if parameter.name in values:
            for node, name in places:
                graph[node]["inputs"][name] = values[parameter.name]
    return graph
