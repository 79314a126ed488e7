"""How this process talks to S3: to the operator's as it is, to tenants' buckets by guarded connections.

A tenant's S3 is any name that he wrote down. It is looked up once for each connection, each of its addresses must be
public or listed in HEARTH_URL_ALLOW, and the connection goes to just those: what the name means a moment later makes no
difference. Redirects are not followed, proxies of the environment not used, and what is not asked for as a stream is
read within bounds. Imports botocore: 10 MB.
"""

import socket
import threading
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import botocore.session
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
    AWSRequest,
    AWSResponse,
)
from botocore.exceptions import ConnectionClosedError, HTTPClientError, ReadTimeoutError
from botocore.httpsession import URLLib3Session
from django.conf import settings
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

from worker.wire import check_address

CONNECT_S, READ_S = 5.0, 30.0  # of a connection, and of each piece that is read
HEAD_S, BODY_S = 40.0, 60.0  # of the whole of an answer's head, and of its body
MOST_BYTES = 1024**2


class _Guarded:
    """Mixed into urllib3's connections."""

    def _new_conn(self: Any) -> socket.socket:
        name, failed = self._dns_host, None
        for address in self._addresses(name):
            self._dns_host = address
            try:
                return super()._new_conn()  # type: ignore[misc,no-any-return]
            except (NewConnectionError, ConnectTimeoutError) as error:
                failed = error
            finally:
                self._dns_host = name  # also what the certificate must be for
        raise failed or NewConnectionError(self, f"{name} has no address")

    def _addresses(self: Any, name: str) -> list[str]:
        """Raises UrlRefused if one of them is not to be reached."""
        try:
            found = socket.getaddrinfo(name.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise NewConnectionError(self, f"{name} is no name") from error
        except socket.gaierror as error:
            raise NameResolutionError(name, self, error) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            check_address(address, settings.URL_ALLOW)
        return addresses

    def getresponse(self: Any) -> Any:
        """Without this a server that sends a byte now and then would hold the thread for ever."""
        sock = self.sock
        late = threading.Timer(HEAD_S, lambda: socket.socket.shutdown(sock, socket.SHUT_RDWR))
        late.daemon = True
        late.start()
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            late.cancel()


class _HTTP(_Guarded, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _HTTPS(_Guarded, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _HTTPPool(AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _HTTP


class _HTTPSPool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _HTTPS


class _Whole:
    """A body that has been read, in the place of urllib3's."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: Any) -> Iterator[bytes]:
        yield self._body


class Guarded(URLLib3Session):  # type: ignore[misc]
    """botocore's HTTP session for addresses that tenants gave. `send` raises HTTPClientError, UrlRefused inside it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(proxies={}, **kwargs)
        self._pool_classes_by_scheme.update(http=_HTTPPool, https=_HTTPSPool)

    def send(self, request: Any) -> Any:
        streams, request.stream_output = request.stream_output, True
        answer = super().send(request)
        if streams and answer.status_code < 300:
            return answer
        body = _Whole(_read(answer.raw, request.url))
        return AWSResponse(answer.url, answer.status_code, answer.headers, body)


def _read(raw: Any, url: str) -> bytes:
    body, ends = b"", time.monotonic() + BODY_S
    try:
        while piece := raw.read1(64 * 1024):
            body += piece
            if len(body) > MOST_BYTES:
                raise HTTPClientError(error=f"the answer has more than {MOST_BYTES} bytes")
            if time.monotonic() > ends:
                raise ReadTimeoutError(endpoint_url=url, error=f"the answer took more than {BODY_S:g} s")
    except HTTPError as error:
        raise ConnectionClosedError(endpoint_url=url, error=error) from error
    finally:
        raw.close()
    return body


@cache
def session(*, trusted: bool) -> Any:
    """trusted: the operator's own S3. Kept, with its connections; of use to all threads."""
    verify = botocore.session.get_session().get_config_variable("ca_bundle") or True
    kind = URLLib3Session if trusted else Guarded
    return kind(timeout=(CONNECT_S, READ_S), verify=verify)


def send(method: str, url: str, headers: dict[str, str], body: bytes, *, trusted: bool) -> Any:
    """One request as it is, without signing or trying again; botocore's AWSResponse. Raises botocore's errors."""
    request = AWSRequest(method=method, url=url, headers=headers, data=body).prepare()
    return session(trusted=trusted).send(request)
