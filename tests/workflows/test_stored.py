"""Stored workflows: what may be one, what the database holds to, and that they go with their tenant."""

import copy
import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.errors import Refused
from jobs import deletion
from jobs.models import Deletion, Job, Workflow, WorkflowVersion
from jobs.workflows import definition, stored
from tests.cast import Client, Place, new_client
from tests.workflows.graphs import PARAMETERS, SIZES, SMALL, TEXT_TO_IMAGE, store


@pytest.fixture
def acme(own_place: Place) -> Client:
    return new_client(own_place, "acme")


@pytest.fixture
def globex(own_place: Place) -> Client:
    return new_client(own_place, "globex")


def told(error: Refused, name: str) -> str:
    return " / ".join(fault["message"] for fault in error.body()["params"][name])


def test_versions_are_numbered_and_the_newest_is_current_unless_not_wanted(acme: Client) -> None:
    workflow = store(acme.tenant)
    second = stored.add_version(acme.tenant.pk, "portrait", SMALL, [], "alice", note="smaller")
    third = stored.add_version(acme.tenant.pk, "portrait", SMALL, SIZES, "alice", current=False)
    assert (workflow.current, second.number, third.number, third.made_by) == (1, 2, 3, "alice")
    found = stored.one(acme.tenant.pk, "portrait")
    assert (found.current, stored.version(found).note, json.loads(stored.version(found, 1).graph)) == (
        2,
        "smaller",
        TEXT_TO_IMAGE,
    )
    assert str(third) == "portrait@3"


def test_a_default_that_is_left_out_is_what_stands_in_the_graph(acme: Client) -> None:
    parameters = json.loads(stored.version(store(acme.tenant)).parameters)
    assert {one["name"]: one.get("default") for one in parameters} == {
        "prompt": None,
        "negative": "",
        "steps": 20,
        "cfg": 8,
        "sampler": "euler",
        "size": 512,
        "photo": None,
        "seed": None,
    }


def changed(number: int, **fields: Any) -> list[dict[str, Any]]:
    """The parameters with one changed; None: without that field."""
    parameters = copy.deepcopy(PARAMETERS)
    parameters[number] |= fields
    return parameters


@pytest.mark.parametrize(
    ("number", "fields", "said"),
    [
        (0, {"paths": ["6.inputs.txt"]}, 'that node (CLIPTextEncode) has no such input; near: "text"'),
        (0, {"paths": ["66.inputs.text"]}, 'has the path "66.inputs.text", but the workflow has no node "66"'),
        (0, {"paths": ["6.text"]}, "a path is <node id>.inputs.<name of an input>"),
        (0, {"paths": ["6.inputs.clip"]}, 'is a string, but "6.inputs.clip" is a link to another node: ["4", 1]'),
        (0, {"paths": ["3.inputs.steps"]}, 'is a string, but "3.inputs.steps" is 20 in the graph'),
        (0, {"paths": []}, "paths must be a list of 1 to 50 paths"),
        (0, {"paths": "6.inputs.text"}, "paths must be a list"),
        (0, {"default": "a cat"}, "is required, so its default would never be used"),
        (0, {"name": "2nd"}, "name must be 1 to 63 letters, digits and _"),
        (0, {"type": "text"}, "type must be one of string, integer"),
        (0, {"min": 1}, 'is a string and has no "min"'),
        (0, {"max_length": 0}, "max_length must be a whole number, 1 to 100000, not 0"),
        (0, {"title": "x" * 201}, "title must be text of at most 200 characters"),
        (0, {"required": 1}, "required must be true or false, not 1"),
        (1, {"paths": ["6.inputs.text"]}, 'has the path "6.inputs.text", as parameter "prompt" has'),
        (1, {"name": "prompt"}, "is there twice"),
        (1, {"default": 5}, "must be text of at most 100000 characters, not 5"),
        (2, {"default": 51}, "must be a whole number, 1 to 50, not 51"),
        (2, {"min": 30}, "has no default, and what stands in the graph is none: it must be a whole number, 30 to 50"),
        (2, {"min": 51}, "max must be no less than its min, 51, not 50"),
        (2, {"min": 1.5}, "min must be a whole number, not 1.5"),
        (2, {"step": 0}, "step must be more than 0"),
        (2, {"multiple": 1.5}, "multiple must be a whole number"),
        (4, {"choices": []}, "choices must be a list of 1 to 1000"),
        (4, {"choices": ["a", "a"]}, "choices must be a list of 1 to 1000"),
        (4, {"choices": [True]}, "choices must be a list of 1 to 1000"),
        (4, {"choices": [1, 2]}, 'is a choice, but "3.inputs.sampler_name" is "euler" in the graph'),
        (4, {"choices": ["ddim"]}, 'must be one of "ddim", not "euler"'),
        (6, {"default": "a.png"}, "must be a file"),
        (7, {"default": 5}, 'is a seed and has no "default"'),
        (7, {"max": -1}, "max must be no less than its min, 0, not -1"),
        (7, {"colour": 5}, 'is a seed and has no "colour"'),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_by_name(
    acme: Client, number: int, fields: dict[str, Any], said: str
) -> None:
    parameters = changed(number, **fields)
    with pytest.raises(Refused) as raised:
        store(acme.tenant, parameters=parameters)
    assert raised.value.code == "invalid_parameters"
    assert said in told(raised.value, parameters[number]["name"])
    assert not stored.of_tenant(acme.tenant.pk).exists()


def test_all_parameters_that_cannot_be_come_in_one_refusal(acme: Client) -> None:
    parameters = [5, {}, *changed(0, paths=["x"], type="choice", choices=["a"], max_length=1)]
    with pytest.raises(Refused) as raised:
        store(acme.tenant, parameters=parameters)
    assert list(raised.value.body()["params"]) == ["parameters[0]", "parameters[1]", "prompt"]


def test_names_with_dots_are_found(acme: Client) -> None:
    node = {"class_type": "X", "inputs": {"a.inputs.b": "t", "images.image0": "u"}}
    graph = {"57:8.inputs": node, "57:8": node}
    paths = ["57:8.inputs.a.inputs.b", "57:8.inputs.inputs.images.image0", "57:8.inputs.images.image0"]
    places = [definition.place_of(graph, path) for path in paths]
    assert places == [("57:8", "a.inputs.b"), ("57:8.inputs", "images.image0"), ("57:8", "images.image0")]


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ({}, "`workflow` is empty"),
        ([], "`workflow` must be an object (ComfyUI's API format), not a list"),
        ("{", "`workflow` is a string that is not valid JSON"),
        ({"nodes": []}, "UI format"),
        ({"1": {"class_type": "A"}}, "has no `inputs` object"),
        ({"1": {"class_type": "A", "inputs": {"a": 2**65}}}, "cannot be stored as it is"),
        ({"1": {"class_type": "A", "inputs": {"a": "\ud800"}}}, "cannot be stored as it is"),
        ({"1": {"class_type": "A", "inputs": {"a": float("inf")}}}, "number that is too large"),
        ({"1": {"class_type": "A", "inputs": {"a": "x" * 2**20}}}, "at most 1048576 are stored"),
    ],
)
def test_what_is_no_graph_is_refused(acme: Client, graph: Any, said: str) -> None:
    with pytest.raises(Refused) as raised:
        stored.create(acme.tenant.pk, "x", graph, [], "a test")
    assert raised.value.code == "invalid_workflow"
    assert said in raised.value.error


def test_a_graph_may_be_text_and_stays_the_same_to_the_last_digit(acme: Client) -> None:
    graph = {"1": {"class_type": "A", "inputs": {"a": 2**64 - 1, "b": 0.1, "c": "\0é", "d": [1.0, None, {"x": -0.0}]}}}
    workflow = stored.create(acme.tenant.pk, "x", json.dumps(graph), [], "a test")
    assert repr(json.loads(stored.version(workflow).graph)) == repr(graph)


@pytest.mark.parametrize("name", ["", "Portrait", "-a", "a@1", "a" * 64, "a/b", "propose", "ä", "a\n"])
def test_what_cannot_be_a_name_is_refused(acme: Client, name: str) -> None:
    with pytest.raises(Refused) as raised:
        store(acme.tenant, name)
    assert raised.value.code == "bad_name"
    store(acme.tenant, "good")
    with pytest.raises(Refused):
        stored.change(acme.tenant.pk, "good", new_name=name)


def test_a_name_is_a_tenants_once_and_free_again_when_it_was_deleted(acme: Client, globex: Client) -> None:
    store(acme.tenant)
    store(globex.tenant)
    store(acme.tenant, "other", SMALL, [])
    for taken in (lambda: store(acme.tenant), lambda: stored.change(acme.tenant.pk, "other", new_name="portrait")):
        with pytest.raises(Refused, match="already"):
            taken()
    stored.remove(acme.tenant.pk, "portrait")
    assert stored.change(acme.tenant.pk, "other", new_name="portrait").name == "portrait"


def test_there_are_not_too_many(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MOST_WORKFLOWS", 1)
    monkeypatch.setattr(stored, "MOST_VERSIONS", 2)
    store(acme.tenant)
    with pytest.raises(Refused, match="You have 1 workflows"):
        store(acme.tenant, "other")
    stored.add_version(acme.tenant.pk, "portrait", SMALL, [], "a test")
    with pytest.raises(Refused, match="which is the most"):
        stored.add_version(acme.tenant.pk, "portrait", SMALL, [], "a test")
    with pytest.raises(Refused, match="at most 100"):
        stored.add_version(acme.tenant.pk, "portrait", SMALL, [{}] * 101, "a test")


def test_globex_finds_none_of_acmes(acme: Client, globex: Client) -> None:
    store(acme.tenant)
    own = globex.tenant.pk
    for verb in (
        lambda: stored.one(own, "portrait"),
        lambda: stored.add_version(own, "portrait", SMALL, [], "globex"),
        lambda: stored.change(own, "portrait", current=1),
        lambda: stored.remove(own, "portrait"),
    ):
        with pytest.raises(Refused) as raised:
            verb()
        assert raised.value.status == 404
    assert stored.one(acme.tenant.pk, "portrait").current == 1


def test_a_version_never_changes(acme: Client) -> None:
    workflow = store(acme.tenant)
    for change in ({"graph": "{}"}, {"parameters": "[]"}, {"number": 2}):
        with pytest.raises(IntegrityError, match="does not change"):
            WorkflowVersion.all_tenants.filter(workflow=workflow).update(**change)


def test_the_current_version_is_one_of_its_own(acme: Client) -> None:
    workflow = store(acme.tenant)
    with pytest.raises(IntegrityError, match="workflow_current_is_its_own"), transaction.atomic():
        Workflow.all_tenants.filter(pk=workflow.pk).update(current=2)
    with pytest.raises(IntegrityError, match="workflow_current_unless_deleted"):
        Workflow.all_tenants.filter(pk=workflow.pk).update(current=None)
    with pytest.raises(Refused, match="no version 2") as raised:
        stored.change(acme.tenant.pk, "portrait", current=2)
    assert raised.value.status == 400


def test_a_version_is_its_workflows_tenants(acme: Client, globex: Client) -> None:
    workflow = store(acme.tenant)
    with pytest.raises(IntegrityError, match="workflow_version_of_tenant"), transaction.atomic():
        WorkflowVersion.all_tenants.create(tenant=globex.tenant, workflow=workflow, number=2, graph="{}")


def test_what_is_left_of_a_deleted_one_goes_when_no_job_names_it(acme: Client) -> None:
    ran, unused = store(acme.tenant, "ran", SMALL, []), store(acme.tenant, "unused", SMALL, [])
    job = acme.submit()
    Job.all_tenants.filter(pk=job.uuid).update(workflow=ran, workflow_version=1)
    for name in ("ran", "unused"):
        stored.remove(acme.tenant.pk, name)
    assert Workflow.all_tenants.filter(pk=unused.pk).exists()
    Workflow.all_tenants.filter(tenant=acme.tenant).update(deleted_at=timezone.now() - timedelta(days=2))
    store(acme.tenant)
    stored.remove(acme.tenant.pk, "portrait")
    assert not Workflow.all_tenants.filter(pk=unused.pk).exists()
    assert Job.all_tenants.select_related("workflow").get(pk=job.uuid).ran == "ran@1"


def test_they_go_with_their_tenant(acme: Client) -> None:
    store(acme.tenant)
    store(acme.tenant, "gone")
    stored.remove(acme.tenant.pk, "gone")
    receipt = deletion.delete_tenant(acme.tenant.pk, "a test")
    Deletion.all_tenants.filter(pk=receipt.pk).update(asked_at=timezone.now() - timedelta(hours=1))
    deletion.go_on()
    receipt.refresh_from_db(from_queryset=Deletion.all_tenants.all())
    assert receipt.done_at
    assert not Workflow.all_tenants.filter(tenant=acme.tenant).exists()
    assert not WorkflowVersion.all_tenants.filter(tenant=acme.tenant).exists()
