"""One story with every secret in it that an instance has to do with, told to a whole instance that logs all it can."""

import json
import re
import secrets
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from hearth.local import postgres
from tests.e2e.instance import Instance, TenantClient, example, picture, saved
from tests.e2e.test_job import png
from tests.fleet.wire import until
from tests.local.running import manage
from tests.runpod.cloud import There
from tests.webhooks.receiver import Receiver

PAGE = re.compile(r'href="(/admin/(?:\w+/(?:\w+/(?:add/|[^/"?#]+/(?:change|history|delete)/)?)?)?)["?#]')
CSRF = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')
OF_NO_PAGE = {"/admin/logout/", "/admin/jsi18n/"}
TENANTS = {"acme": "comfyui", "globex": "by-hand", "initech": "cloud"}
MAKE = """
from django.core.management import call_command
from jobs.models import Endpoint
Endpoint.objects.create(name="by-hand", dialect="hearth")
for command in {!r}: call_command(*command)
"""
STORED = """
from accounts.audit import Change
from django.contrib.sessions.models import Session
from django_q.models import OrmQ, Task
for task in Task.objects.all(): print(task.name, task.func, task.args, task.kwargs, task.result)
for waiting in OrmQ.objects.all(): print(waiting.task())
for session in Session.objects.all(): print(session.get_decoded())
for change in Change.objects.all(): print(change.who, change.name, change.did, change.fields)
"""


def new_secret() -> str:
    """With what is written otherwise in URLs, JSON and HTML."""
    return f"s/{secrets.token_hex(12)}+&{secrets.token_hex(6)}="


class Browser:
    """The operator's, signed in. Keeps what it was shown."""

    def __init__(self, url: str, password: str) -> None:
        self.http = httpx.Client(base_url=url, follow_redirects=True, timeout=60)
        self.shown: list[str] = []
        self.post("/admin/login/", username="admin", password=password)
        self.session = self.http.cookies["sessionid"]

    def get(self, path: str) -> str:
        page = self.http.get(path)
        assert page.status_code < 500, f"{page.status_code} of {path}"
        return page.text

    def post(self, path: str, **fields: Any) -> str:
        """What is shown after it, which is not kept: it may be a new key."""
        token = CSRF.search(self.get(path))
        assert token, path
        return self.http.post(path, data={"csrfmiddlewaretoken": token[1], **fields}).text

    def walk(self) -> int:
        """Every list, and each row's pages, that another page leads to. How many there are."""
        seen: set[str] = set()
        todo = ["/admin/"]
        while todo:
            path = todo.pop()
            page = self.get(path)
            self.shown.append(page)
            seen.add(path)
            todo += {unescape(link) for link in PAGE.findall(page)} - seen - set(todo) - OF_NO_PAGE
        return len(seen)


@dataclass
class Caller:
    """A tenant, by HTTP. Keeps what it is answered."""

    tenant: TenantClient
    answers: list[str] = field(default_factory=list)

    def call(self, method: str, path: str, body: Any = None, key: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tenant.api_key if key is None else key}"}
        answer = httpx.request(method, f"{self.tenant.url}{path}", json=body, headers=headers, timeout=60)
        self.answers.append(f"{answer.headers}\n{answer.text}")
        return answer

    def run(self, given: dict[str, Any], status: int = 200, **fields: Any) -> str:
        answer = self.call("POST", f"/v2/{self.tenant.endpoint}/run", {"input": given, **fields})
        assert answer.status_code == status, answer.text
        return str(answer.json().get("id"))

    def ended(self, job: str) -> dict[str, Any]:
        found = self.tenant.ended(job, 90)
        for path in (
            f"/v2/{self.tenant.endpoint}/status/{job}",
            f"/v2/{self.tenant.endpoint}/requests",
            "/api/v1/assets",
        ):
            self.call("GET", path)
        return found


class Story:
    """secrets: by what they are. After tell(), `texts` has what was written down and said, by where."""

    def __init__(self, up: Instance, env: dict[str, str], there: There, receiver: Receiver, remote_key: str) -> None:
        """env: what commands of the operator's are given beside HEARTH_HOME."""
        self.up, self.env, self.there, self.receiver = up, env, there, receiver
        self.s3 = up.home.s3()
        self.secrets = {
            "the key that signs": up.home.secret("HEARTH_SECRET_KEY"),
            "the key that seals": up.home.secret("HEARTH_SEAL_KEYS"),
            "the operator's S3 secret": self.s3["secret_access_key"],
            "the local workers' key": up.home.secret("local-worker-key").rstrip("="),
            "the operator's password": up.home.read("admin.json")["password"],
            "an API key of RunPod's": remote_key,
        }
        self.callers: dict[str, Caller] = {}
        self.ends: dict[str, str] = {}
        self.pages = 0

    def tell(self) -> None:
        self.browser = Browser(self.up.url, self.secrets["the operator's password"])
        self.secrets["a session"] = self.browser.session
        self.make()
        self._own_buckets()
        self._refused()
        self._managed()
        self._by_hand()
        self._by_runpod()
        until(lambda: len(self.receiver.got) >= 4, 60)
        self.pages = self.browser.walk()
        said = {
            "logs": [self._logs()],
            "the database": [self._dump()],
            "tasks, sessions and the admin's log": [self.shell(STORED)],
            "pages": self.browser.shown,
            "answers": [text for caller in self.callers.values() for text in caller.answers],
            "webhooks": [f"{got.headers}\n{got.body.decode()}" for got in self.receiver.got],
        }
        self.texts = {where: each_line_once(texts) for where, texts in said.items()}

    def shell(self, code: str, **more: str) -> str:
        done = manage(self.up.home.path, "shell", "-c", code, **self.env, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def make(self) -> None:
        """Tenants with their keys, a webhook and its secrets, an endpoint at RunPod: by the operator's commands."""
        token = self.secrets["a webhook URL's token"] = secrets.token_hex(16)
        self.hook = f"http://127.0.0.1:{self.receiver.port}/hook?token={token}"
        commands = [
            ["add_runpod_endpoint", "cloud", "--id", "there"],
            *(["create_tenant", name, "--endpoint", endpoint, "--json"] for name, endpoint in TENANTS.items()),
            ["webhook", "add", "acme", self.hook, "--json"],
            ["webhook", "roll", "acme", "--json"],
        ]
        key = self.secrets["an API key of RunPod's"]
        said = self.shell(MAKE.format(commands), RUNPOD_API_KEY=key).splitlines()
        *tenants, first, rolled = (json.loads(line) for line in said if line.startswith("{"))
        for made in tenants:
            name, endpoint = made["tenant"], made["endpoint"]
            self.secrets |= {f"{name}'s API key": made["api_key"], f"{endpoint}'s worker key": made["worker_key"]}
            self.callers[name] = Caller(TenantClient(self.up.url, endpoint, made["api_key"], made["worker_key"]))
        self.secrets |= {"a rolled webhook secret": first["secret"], "a webhook secret": rolled["secret"]}

    def id_of(self, tenant: str) -> str:
        found = re.search(
            r"/admin/accounts/tenant/([0-9a-f-]{36})/", self.browser.get(f"/admin/accounts/tenant/?q={tenant}")
        )
        assert found
        return found[1]

    def bucket(self, tenant_id: str, name: str, secret: str, **fields: Any) -> str:
        given = {
            "tenant": tenant_id,
            "name": name,
            "endpoint_url": self.s3["endpoint_url"],
            "s3_bucket": "hearth",
            "access_key_id": self.s3["access_key_id"],
            "prefix": name,
            "signed_urls": "on",
            "secret": secret,
        }
        return self.browser.post("/admin/storage/bucket/add/", **given | fields)

    def _own_buckets(self) -> None:
        """A tenant with buckets of its own, one of which has a wrong secret; the real worker runs its jobs."""
        acme = self.callers["acme"]
        id = self.id_of("acme")
        made = self.browser.post("/admin/accounts/apikey/add/", tenant=id, name="second", scopes=["run", "read"])
        second = re.search(r"hth_[0-9a-f]{12}_[\w-]{20,}", made)
        assert second
        self.secrets["an API key made in the admin"] = second[0]
        self.secrets["a bucket's wrong secret"], self.secrets["a refused bucket's secret"] = new_secret(), new_secret()
        self.bucket(id, "own", self.s3["secret_access_key"])
        self.bucket(id, "wrong", self.secrets["a bucket's wrong secret"])
        self.bucket(id, "refused", self.secrets["a refused bucket's secret"], endpoint_url="https://10.0.0.1")
        for path in set(re.findall(r"/admin/storage/bucket/\d+/", self.browser.get("/admin/storage/bucket/"))):
            self.browser.post(f"{path}verify_now/", _form_submitted="1")
        image = png("up.png", 40, 40)
        self.secrets["a picture in base64"] = image["image"]
        given = {"workflow": example("load_image"), "images": [image]}
        self.end(acme, "own", acme.run(given, storage="own", webhook=self.hook))
        self.end(acme, "wrong", acme.run({"workflow": saved(picture(), "1")}, storage="wrong"))
        answer = acme.call("GET", f"/v2/comfyui/status/{acme.run({'workflow': saved(picture(), '1')})}").json()
        self.end(acme, "usual", answer["id"])
        acme.call("GET", "/v2/comfyui/health", key=second[0])

    def end(self, caller: Caller, name: str, job: str) -> None:
        ended = caller.ended(job)
        self.ends[name] = ended["status"]
        for number, url in enumerate((ended.get("output") or {}).get("files", [])):
            self.secrets[f"the signature of {name}'s URL {number}"] = signature(url)

    def own_bucket(self, secret: str, **fields: Any) -> dict[str, Any]:
        known = {"endpointUrl": f"{self.s3['endpoint_url']}/hearth", "accessId": self.s3["access_key_id"]}
        return known | {"accessSecret": secret, "bucketName": "theirs"} | fields

    def _refused(self) -> None:
        """Requests that are refused for all that may be wrong with them, with secrets in them; wrong keys."""
        caller = self.callers["acme"]
        secret = self.secrets["a refused request's secret"] = new_secret()
        good, graph = self.own_bucket(secret), saved(picture(), "1")
        for given in (
            {"input": {"workflow": graph, "tobucket": self.own_bucket(secret, endpointUrl="http://10.0.0.1")}},
            {"input": {"workflow": graph}, "s3Config": good | {"accessId": 5}},
            {"input": {"workflow": graph, "tobucket": [good]}},
            {"input": {"workflow": {"1": 5}, "tobucket": good}},
            {"input": {"workflow": graph, "tobucket": good}, "storage": "unknown"},
            {"input": {"workflow": graph, "tobucket": good}, "policy": {"ttl": -1}},
        ):
            answer = caller.call("POST", "/v2/comfyui/run", given)
            assert answer.status_code == 400, answer.text
        wrong = self.secrets["a wrong API key"] = caller.tenant.api_key[:-6] + secrets.token_hex(3)
        assert caller.call("GET", "/v2/comfyui/health", key=wrong).status_code == 401
        assert caller.call("GET", f"/v2/comfyui/job-take/w?key={secret}", key=wrong).status_code == 401

    def _managed(self) -> None:
        """What a tenant manages through the API: a bucket, right, refused, verified and changed; webhooks."""
        globex = self.callers["globex"]
        page = self.browser.post("/admin/accounts/apikey/add/", tenant=self.id_of("globex"), name="m", scopes="manage")
        made = re.search(r"hth_[0-9a-f]{12}_[\w-]{20,}", page)
        assert made
        key = self.secrets["a key that manages"] = made[0]
        names = "a secret sent to the API", "a refused one", "a new one"
        self.secrets |= (secret := {name: new_secret() for name in names})
        first, refused, second = secret.values()
        where = {"endpoint_url": self.s3["endpoint_url"], "s3_bucket": "hearth", "access_key_id": "nobody"}
        for status, method, path, body in (
            (201, "POST", "", {"name": "mine", "secret_access_key": first} | where),
            (409, "POST", "", {"name": "mine", "secret_access_key": refused} | where),
            (400, "POST", "", {"name": "No", "secret_access_key": refused} | where),
            (400, "POST", "", {"name": "no", "secret_access_key": [refused]} | where),
            (400, "PATCH", "/mine", {"endpoint_url": "https://10.0.0.1", "secret_access_key": refused}),
            (200, "POST", "/mine/verify", None),
            (200, "PATCH", "/mine", {"secret_access_key": second}),
            (200, "GET", "", None),
        ):
            answer = globex.call(method, f"/api/v1/buckets{path}", body, key)
            assert answer.status_code == status, answer.text
        hooks, headers = f"{self.up.url}/api/v1/webhooks", {"Authorization": f"Bearer {key}"}
        told = httpx.post(hooks, json={"url": self.hook}, headers=headers, timeout=60).json()
        rolled = httpx.post(f"{hooks}/secrets", json={}, headers=headers, timeout=60).json()
        self.secrets |= {"a secret told by the API": told["secret"], "a rolled one": rolled["secret"]}
        refused = {"url": f"http://10.0.0.1/?token={self.secrets['a refused one']}"}
        assert globex.call("POST", "/api/v1/webhooks", refused, key).status_code == 400
        for path in ("webhooks", f"webhooks/{told['id']}", "webhooks/secrets", "deliveries", "keys"):
            globex.call("GET", f"/api/v1/{path}", key=key)

    def _by_hand(self) -> None:
        """A job whose request names an S3 bucket, and what its worker is given."""
        globex = self.callers["globex"]
        secret = self.secrets["a request's S3 secret"] = new_secret()
        job = globex.run({"workflow": saved(picture(), "1"), "tobucket": self.own_bucket(secret)})
        second = globex.run({"workflow": saved(picture(), "1")}, s3Config=self.own_bucket(secret))
        take = f"{self.up.url}/v2/by-hand/job-take/w1?hearth=1&job_in_progress=0"
        headers = {"Authorization": globex.tenant.worker_key}
        taken = until(lambda: httpx.get(take, headers=headers, timeout=30).json(), 30)
        token = self.secrets["a worker's token"] = taken["input"]["_hearth"]["token"]
        hooks = f"{self.up.url}/hooks/worker/{token}"
        told = [httpx.post(f"{hooks}/started", json={})]
        file = {
            "name": "a.png",
            "bytes": 3,
            "sha256": "0" * 64,
            "content_type": "image/png",
            "node": "1",
            "kind": "image",
        }
        slots = httpx.post(f"{hooks}/uploads", json={"files": [file]})
        self.secrets["the signature of an upload URL"] = signature(slots.json()["uploads"][0]["url"])
        told += [httpx.post(f"{hooks}/{what}", content=b"{") for what in ("stored", "complete")]
        told.append(httpx.post(f"{self.up.url}/hooks/worker/{token}x/started", json={}))
        globex.answers += [answer.text for answer in told]
        done = f"{self.up.url}/v2/by-hand/job-done/w1/{taken['id']}?hearth=1&isStream=false"
        said = httpx.post(done, headers=headers, content=json.dumps({"error": "it broke"}))
        assert said.status_code == 200, said.text
        self.ends["by hand"] = globex.ended(job)["status"]
        globex.call("POST", f"/v2/by-hand/cancel/{second}")

    def _by_runpod(self) -> None:
        """A job that is pushed to RunPod and comes back by its webhook, with the request beside it."""
        initech = self.callers["initech"]
        secret = self.secrets["the S3 secret of a pushed request"] = new_secret()
        job = initech.run({"workflow": saved(picture(), "1"), "tobucket": self.own_bucket(secret)})
        (sent,) = until(lambda: self.there.asked("run"), 60)
        hook, token = sent.json["webhook"], sent.json["input"]["_hearth"]["token"]
        self.secrets["the token of RunPod's webhook"] = hook.rpartition("/")[2]
        self.secrets["the token of a worker at RunPod"] = token
        remote = next(iter(self.there.jobs))
        self.there.becomes(remote, "FAILED", error="it broke", input=sent.json["input"], webhook=hook)
        initech.answers.append(httpx.post(hook, json=self.there.jobs[remote]).text)
        initech.answers.append(httpx.post(f"{hook}x", json=self.there.jobs[remote]).text)
        self.ends["by RunPod"] = initech.ended(job)["status"]

    def _logs(self) -> str:
        found = sorted(self.up.home.folder("logs").glob("*.log*"))
        return "\n".join(log.read_text(errors="replace") for log in found)

    def _dump(self) -> str:
        dump = [str(postgres.binaries() / "pg_dump"), self.up.home.database_url()]
        done = subprocess.run(dump, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout


def each_line_once(texts: Iterable[str]) -> str:
    """Pages have much in common."""
    return "\n".join({line for text in texts for line in text.splitlines()})


def signature(url: str) -> str:
    return parse_qs(urlsplit(url).query)["X-Amz-Signature"][0]
