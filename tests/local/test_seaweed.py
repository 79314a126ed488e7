import dataclasses
import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import psutil
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from hearth.local import seaweed
from hearth.local.home import Home
from hearth.local.process import Child, stop
from tests.local.running import eventually, get


@pytest.fixture
def home(home_path: Path) -> Iterator[Home]:
    home = Home(home_path)
    yield home
    seaweed.clear_sockets(home)


def started(home: Home) -> Child:
    child = Child(seaweed.part(home, "files"), home.folder("logs") / "s3.log")
    assert eventually(child.is_ready, 30), child.last_lines(40)
    return child


def client(home: Home, **changed: str) -> BaseClient:
    known = {**seaweed.credentials(home), **changed}
    return boto3.client(
        "s3",
        endpoint_url=known["endpoint_url"],
        aws_access_key_id=known["access_key_id"],
        aws_secret_access_key=known["secret_access_key"],
        region_name=seaweed.REGION,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
    )


def test_what_was_stored_outlives_a_kill_and_a_stop_at_the_same_address(home: Home) -> None:
    child = started(home)
    address = seaweed.credentials(home)["endpoint_url"]
    client(home).put_object(Bucket="files", Key="a/b", Body=b"one")
    child.kill()
    stop([child])
    child = started(home)
    assert client(home).get_object(Bucket="files", Key="a/b")["Body"].read() == b"one"
    client(home).put_object(Bucket="files", Key="c", Body=b"two")
    stop([child])
    child = started(home)
    assert client(home).get_object(Bucket="files", Key="c")["Body"].read() == b"two"
    assert seaweed.credentials(home)["endpoint_url"] == address
    stop([child])


def test_it_is_not_ready_before_it_can_store_and_read(home: Home) -> None:
    part = seaweed.part(home, "files")
    without = dataclasses.replace(part, argv=[*part.argv, "-volume=false"])
    child = Child(without, home.folder("logs") / "s3.log")
    assert eventually(lambda: child.is_ready() or has_bucket(home), 30), child.last_lines(40)
    assert not child.is_ready()
    stop([child])
    child = started(home)
    assert "Contents" not in client(home).list_objects_v2(Bucket="files")
    stop([child])


def has_bucket(home: Home) -> bool:
    try:
        client(home).head_bucket(Bucket="files")
    except (BotoCoreError, ClientError):
        return False
    return True


def test_another_key_opens_nothing_and_nobody_else_is_reached(home: Home) -> None:
    child = started(home)
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client(home, secret_access_key="wrong").list_buckets()
    listening = [one for one in psutil.Process(child.pid).net_connections() if one.status == "LISTEN"]
    assert {one.laddr.ip for one in listening if one.family == socket.AF_INET} == {"127.0.0.1"}
    with pytest.raises(OSError, match="404"):
        get(f"http://127.0.0.1:{home.read('s3-ports.json')['filer']}/")
    stop([child])


def test_the_port_of_the_last_start_is_kept_while_it_is_free(home: Home) -> None:
    first = seaweed.part(home, "files").port
    assert seaweed.part(home, "files").port == first
    with socket.create_server(("127.0.0.1", first)):
        second = seaweed.part(home, "files").port
    assert second != first
    assert seaweed.part(home, "files").port == second
