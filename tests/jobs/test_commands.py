"""manage.py create_tenant, job, worker_env, prepare_local, sweeper."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts.models import ApiKey, Tenant
from jobs.models import Endpoint, Grant, WorkerKey
from tests.cast import Client, unique


def said(*args: str) -> list[str]:
    out = StringIO()
    call_command(*args, stdout=out)
    return out.getvalue().splitlines()


def test_an_instance_has_the_endpoint_comfyui_from_its_first_migration() -> None:
    endpoint = Endpoint.objects.get(name="comfyui")
    assert (endpoint.backend, endpoint.dialect) == ("fleet", "hearth")


def test_create_tenant_makes_a_key_that_manages_if_it_is_told_to() -> None:
    for options, scopes in (((), ["run", "read"]), (("--manage",), ["run", "read", "manage"])):
        name = unique("managed")
        call_command("create_tenant", name, *options, stdout=StringIO())
        assert ApiKey.all_tenants.get(tenant__name=name).scopes == scopes


def test_create_tenant_prints_one_object_as_its_last_line() -> None:
    name = unique("acme")
    made = json.loads(said("create_tenant", name, "--json")[-1])
    assert list(made) == ["tenant", "endpoint", "api_key", "worker_key", "base_url"]
    assert (made["tenant"], made["endpoint"]) == (name, "comfyui")
    assert made["api_key"].startswith("hth_")
    assert made["worker_key"].startswith("hwk_")
    assert not made["base_url"].endswith("/v2")


def test_the_same_name_twice_is_an_error_that_changes_nothing() -> None:
    name = unique("acme")
    call_command("create_tenant", name, stdout=StringIO())
    before = [model.objects.count() for model in (Tenant, WorkerKey)] + [
        ApiKey.all_tenants.count(),
        Grant.all_tenants.count(),
    ]
    with pytest.raises(CommandError, match="already"):
        call_command("create_tenant", name)
    after = [model.objects.count() for model in (Tenant, WorkerKey)] + [
        ApiKey.all_tenants.count(),
        Grant.all_tenants.count(),
    ]
    assert before == after


@pytest.mark.parametrize("name", ["", "Acme", "a b", "a-", "a" * 64, "a\n", "ü"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(CommandError, match="Tenant name"):
        call_command("create_tenant", name)


def test_job_prints_the_job_with_its_timeline(acme: Client) -> None:
    job = acme.submit()
    acme.place.worker().take_one()
    found = json.loads(said("job", f"{job.uuid}-e1", "--json")[-1])
    assert (found["status"], found["tenant"]) == ("IN_PROGRESS", acme.tenant.name)
    assert [event["kind"] for event in found["events"]] == ["created", "handed"]
    assert found["events"][1]["ms"] >= found["events"][0]["ms"]


def test_job_says_when_there_is_none() -> None:
    with pytest.raises(CommandError, match="no job"):
        call_command("job", "nope")


def test_worker_env_makes_a_key_that_opens_the_endpoint(acme: Client) -> None:
    env = dict(line.split("=", 1) for line in said("worker_env", acme.place.name))
    assert f"/v2/{acme.place.name}/job-take/$ID?" in env["RUNPOD_WEBHOOK_GET_JOB"]
    assert int(env["RUNPOD_PING_INTERVAL"]) >= 1000
    assert all("?" in env[name] for name in env if name.startswith("RUNPOD_WEBHOOK"))
    assert env["RUNPOD_POD_ID"], "the SDK sends no pings without"
    switches = ("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "RUNPOD_SKIP_GPU_CHECK", "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS")
    assert {env[name] for name in switches} == {"true"}
    assert WorkerKey.objects.filter(
        endpoint=acme.place.endpoint, prefix=env["RUNPOD_AI_API_KEY"].split("_")[1]
    ).exists()


def test_worker_env_says_that_comfyui_dir_lets_the_worker_delete(acme: Client) -> None:
    assert said("worker_env", acme.place.name)[-1].startswith("# COMFYUI_DIR=")


def test_the_sweeper_sweeps_once() -> None:
    assert "time_out_overdue" in said("sweeper", "--once")[-1]
