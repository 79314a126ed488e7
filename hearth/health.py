"""/healthz: whether this process, its database and S3 work, and whether a worker polls."""

import asyncio
import urllib.error
import urllib.request

from django.conf import settings
from starlette.requests import Request
from starlette.responses import Response

from accounts import sql
from accounts.errors import Refused
from jobs.wire.answers import answer
from jobs.wire.call import verb

WORKER_ALIVE = "SELECT EXISTS (SELECT 1 FROM jobs_worker WHERE take_at > clock_timestamp() - interval '30 s')"


async def healthz(request: Request) -> Response:
    """200 when the database answers, else 503. `db`, `s3`: ok or away; `worker`: ok or none."""
    (db, worker), s3 = await asyncio.gather(_database(), asyncio.to_thread(_s3))
    status = "ok" if db == "ok" else "unavailable"
    return answer({"status": status, "db": db, "s3": s3, "worker": worker}, 200 if db == "ok" else 503)


async def _database() -> tuple[str, str]:
    try:
        return "ok", "ok" if await verb(_worker_alive) else "none"
    except Refused:
        return "away", "none"


def _worker_alive() -> bool:
    return bool(sql.one(WORKER_ALIVE)[0])


def _s3() -> str:
    """Whether the operator's S3 answers at all; any HTTP answer is one."""
    try:
        urllib.request.urlopen(settings.S3_ENDPOINT_URL, timeout=2).close()
    except urllib.error.HTTPError:
        return "ok"
    except (OSError, ValueError):
        return "away"
    return "ok"
