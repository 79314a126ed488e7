"""Sealing all stored secrets anew: online, restartable, and plain about what no key opens; wrong keys at a start."""

import os
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.conf import settings
from django.core.management import CommandError, call_command

from accounts import rotation, sql
from accounts.models import Tenant, User
from accounts.rotation import keys_fault, reseal_all, sealed_fields
from accounts.sealed import SealBroken, Sealed, SealedField
from accounts.second_factor import begin
from hearth.local.instance import ROOT
from jobs.models import Payload, RunpodEndpoint
from jobs.webhooks.register import roll_secret
from storage.models import Bucket
from tests.cast import new_client, new_place, unique

OWN = {"endpointUrl": "https://s3.example.com/b", "accessId": "A", "accessSecret": "request's own", "bucketName": ""}
BUCKET_COLUMN, REQUEST_COLUMN = "storage.Bucket.secret_access_key", "jobs.Payload.request_bucket"


class Keys:
    """settings.SEAL_KEYS with a new key before those of the run."""

    def __init__(self) -> None:
        self.old = list(settings.SEAL_KEYS)
        self.new = Fernet.generate_key().decode()

    def use(self, *keys: str) -> None:
        settings.SEAL_KEYS[:] = keys


@pytest.fixture
def keys(database: str) -> Iterator[Keys]:
    """Without what other tests sealed with a lost key. Their secrets open again when this one has ended: the web has
    the keys of the run."""
    made = Keys()
    list(reseal_all(discard=True))
    made.use(made.new, *made.old)
    yield made
    made.use(*made.old, made.new)
    list(reseal_all(discard=True))
    made.use(*made.old)


def new_bucket(secret: str = "s3cret") -> Bucket:
    tenant = Tenant.objects.create(name=unique("acme"))
    fields = {"endpoint_url": "https://s3.example.com", "s3_bucket": "b", "access_key_id": "A"}
    made: Bucket = Bucket.all_tenants.create(
        tenant=tenant, name="main", secret_access_key=Sealed.seal(secret), **fields
    )
    return made


def secret_of(bucket: Bucket) -> Sealed:
    found: Sealed = Bucket.all_tenants.get(pk=bucket.pk).secret_access_key
    return found


def rotate(*arguments: str) -> str:
    said = StringIO()
    call_command("rotate_secrets", *arguments, stdout=said)
    return said.getvalue()


def broken_bucket() -> Bucket:
    bucket = new_bucket()
    token = Fernet(Fernet.generate_key()).encrypt(b"x")
    Bucket.all_tenants.filter(pk=bucket.pk).update(secret_access_key=Sealed(token))
    return bucket


def one_in_each_column() -> dict[str, str]:
    """A secret in every sealed column, by the column: what it is."""
    bucket, acme = new_bucket(), new_client(new_place())
    job = acme.submit(s3Config=OWN)
    elsewhere = new_place().endpoint
    RunpodEndpoint.objects.create(endpoint=elsewhere, remote_id="there", api_key=Sealed.seal("rpa_KEY"))
    webhook = roll_secret(acme.tenant)
    factor = begin(User.objects.create_user(unique("user")))
    held = Payload.objects.get(job_id=job.uuid).request_bucket
    assert (secret_of(bucket).unseal(), "request's own" in held.unseal()) == ("s3cret", True)
    return {
        BUCKET_COLUMN: "s3cret",
        REQUEST_COLUMN: held.unseal(),
        "jobs.RunpodEndpoint.api_key": "rpa_KEY",
        "jobs.WebhookSecret.secret": webhook,
        "accounts.SecondFactor.key": factor.key.unseal(),
    }


def all_of(column: SealedField) -> list[Sealed]:
    rows = column.model._base_manager.exclude(**{column.attname: None})
    return list(rows.values_list(column.attname, flat=True))


def test_after_a_rotation_the_first_key_alone_opens_every_sealed_column(keys: Keys) -> None:
    """A new one fails here until the story above has a secret of its kind."""
    keys.use(*keys.old)
    known = one_in_each_column()
    assert {str(column) for column in sealed_fields()} == set(known)
    keys.use(keys.new, *keys.old)
    assert "The first key alone opens all" in rotate()
    keys.use(keys.new)
    first = Fernet(keys.new)
    for column in sealed_fields():
        assert known[str(column)] in [first.decrypt(secret.token).decode() for secret in all_of(column)]


COLUMNS = """
SELECT table_name, column_name, data_type = 'bytea' FROM information_schema.columns
 WHERE table_schema = 'public' AND data_type IN ('bytea', 'text', 'character varying')"""


def has_a_token(table: str, column: str, is_bytea: bool) -> bool:
    """As Fernet's begin: a byte 128, and the time's upper bytes."""
    begin = f"substr(\"{column}\", 1, 6) = 'gAAAAA'::bytea" if is_bytea else f"left(\"{column}\", 6) = 'gAAAAA'"
    return sql.first(f'SELECT 1 FROM "{table}" WHERE {begin} LIMIT 1') is not None


def test_nothing_is_stored_sealed_that_is_not_rotated(keys: Keys) -> None:
    """By what is in the database, whatever its column's type."""
    keys.use(*keys.old)
    one_in_each_column()
    found = {(table, name) for table, name, is_bytea in sql.rows(COLUMNS) if has_a_token(table, name, is_bytea)}
    assert found == {(column.model._meta.db_table, column.column) for column in sealed_fields()}


def test_it_says_how_many_and_does_nothing_twice(keys: Keys) -> None:
    keys.use(*keys.old)
    bucket = new_bucket()
    keys.use(keys.new, *keys.old)
    count = Bucket.all_tenants.count()
    first = rotate()
    assert f"{BUCKET_COLUMN}: " in first
    token = secret_of(bucket).token
    assert f"{BUCKET_COLUMN}: 0 sealed anew, {count} were already" in rotate()
    assert secret_of(bucket).token == token


def test_one_that_was_cut_off_goes_on_where_it_was(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "BATCH", 2)
    keys.use(*keys.old)
    buckets = [new_bucket() for _ in range(5)]
    keys.use(keys.new, *keys.old)
    replace, done = rotation._replace, []

    def three_then_die(*given: Any) -> bool:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(given)
        return replace(*given)

    monkeypatch.setattr(rotation, "_replace", three_then_die)
    with pytest.raises(KeyboardInterrupt):
        rotate()
    monkeypatch.setattr(rotation, "_replace", replace)
    assert "The first key alone opens all" in rotate()
    keys.use(keys.new)
    assert {secret_of(bucket).unseal() for bucket in buckets} == {"s3cret"}


def test_what_is_entered_meanwhile_stays(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.use(*keys.old)
    bucket = new_bucket()
    keys.use(keys.new, *keys.old)
    replace = rotation._replace

    def edited_first(column: Any, pk: Any, *given: Any) -> bool:
        if (str(column), pk) == (BUCKET_COLUMN, bucket.pk):
            Bucket.all_tenants.filter(pk=pk).update(secret_access_key=Sealed.seal("entered meanwhile"))
        return replace(column, pk, *given)

    monkeypatch.setattr(rotation, "_replace", edited_first)
    with pytest.raises(CommandError, match="Somebody else has changed 1 secret meanwhile"):
        rotate()
    assert secret_of(bucket).unseal() == "entered meanwhile"


def test_a_secret_that_no_key_opens_is_named_and_left(keys: Keys) -> None:
    bucket = broken_bucket()
    token = secret_of(bucket).token
    said = StringIO()
    with pytest.raises(CommandError, match=r"secrets? opens? with none of HEARTH_SEAL_KEYS"):
        call_command("rotate_secrets", stdout=said)
    assert f"opens with no key: {BUCKET_COLUMN} of {bucket.pk}\n" in said.getvalue()
    assert secret_of(bucket).token == token


def test_a_discarded_secret_is_refused_where_it_is_used(keys: Keys) -> None:
    bucket = broken_bucket()
    assert f"discarded: {BUCKET_COLUMN} of {bucket.pk}\n" in rotate("--discard")
    assert "discarded" not in rotate("--discard")
    with pytest.raises(SealBroken, match="lost with its key: enter it anew"):
        secret_of(bucket).unseal()


def test_keys_that_open_nothing_are_a_fault_and_one_that_opens_is_none(keys: Keys) -> None:
    new_bucket()
    keys.use(Fernet.generate_key().decode())
    assert keys_fault().startswith("HEARTH_SEAL_KEYS opens none of the secrets in this database")
    with pytest.raises(CommandError, match=r"accounts\.E001"):
        call_command("check", databases=["default"])
    keys.use(keys.new)
    assert keys_fault() == ""


def test_a_single_secret_that_opens_with_no_key_stops_nothing(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    new_bucket()
    broken_bucket()
    assert keys_fault() == ""
    assert "secrets open with none of HEARTH_SEAL_KEYS" in caplog.text


STARTS = [["-m", "hearth.asgi"], ["manage.py", "sweeper"], ["manage.py", "prepare_local"]]


@pytest.mark.parametrize("argv", STARTS, ids=lambda argv: argv[-1])
def test_nothing_starts_with_the_wrong_keys(database: str, argv: list[str]) -> None:
    new_bucket()
    done = start(argv, Fernet.generate_key().decode())
    assert done.returncode == 1
    assert "HEARTH_SEAL_KEYS opens none of the secrets in this database" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_keys_and_with_a_database_of_ones_own_nothing_starts(database: str) -> None:
    """Keys that were made up on the way would be lost with the machine."""
    done = start(["manage.py", "sweeper"], "")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("With DATABASE_URL set, Hearth generates no keys: set it.")
    assert "HEARTH_SEAL_KEYS is not set." in done.stderr


@pytest.mark.parametrize("text", ["{key}x", "{key},short", "{key},,hunter2hunter2", "{key}\n{key}"])
def test_a_malformed_key_is_named_by_its_place_and_never_shown(text: str) -> None:
    given = text.format(key=Fernet.generate_key().decode())
    done = start(["-m", "hearth.local", "up"], given)
    assert done.returncode == 1
    assert "hearth: HEARTH_SEAL_KEYS: key " in done.stderr
    assert not [part for part in given.split(",") if part and part in done.stderr]
    assert "Traceback" not in done.stderr


def test_spaces_and_a_comma_at_the_end_are_no_keys() -> None:
    from hearth.settings import seal_keys

    key = Fernet.generate_key().decode()
    assert seal_keys(f" {key} ,{key},\n") == [key, key]


def start(argv: list[str], seal_keys: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "HEARTH_SEAL_KEYS": seal_keys, "PORT": "0"}
    return subprocess.run([sys.executable, *argv], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
