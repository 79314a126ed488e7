"""/api/v1 as the holder of one key calls it."""

from dataclasses import dataclass, replace
from typing import Any

import httpx

from tests.cast import Client
from tests.wire.api import check_refusal


@dataclass(frozen=True)
class V1:
    http: httpx.Client
    client: Client
    authorization: str

    @classmethod
    def of(cls, http: httpx.Client, client: Client) -> "V1":
        return cls(http, client, f"Bearer {client.api_key}")

    @classmethod
    def manages(cls, http: httpx.Client, client: Client) -> "V1":
        """By a key with the scope `manage` alone."""
        return cls(http, client, f"Bearer {client.new_key(scopes=['manage'])}")

    def by(self, authorization: str) -> "V1":
        return replace(self, authorization=authorization)

    def call(self, method: str, path: str, **content: Any) -> httpx.Response:
        headers = {"Authorization": self.authorization} | content.pop("headers", {})
        return self.http.request(method, f"/api/v1/{path}", headers=headers, **content)

    def get(self, path: str, status: int = 200, **params: Any) -> Any:
        answered = self.call("GET", path, params=params or None)
        assert answered.status_code == status, answered.text
        return answered.json()

    def upload(self, content: bytes, name: str = "a.png", kind: str = "image/png", **params: Any) -> Any:
        """The asset of a body that is the file."""
        headers = {"Content-Type": kind}
        answered = self.call("POST", "assets", content=content, headers=headers, params={"name": name, **params})
        assert answered.status_code == 201, answered.text
        return answered.json()

    def refused(self, status: int, code: str, method: str, path: str, **content: Any) -> str:
        """The message."""
        return str(check_refusal(self.call(method, path, **content), status, code)["error"])
