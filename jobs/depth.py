"""How many jobs a worker may hold (rules.md 4): one runs, one is made ready, nothing more leaves the queue."""

from dataclasses import dataclass

from accounts import sql

NOT_READY_S, MOST_NOT_READY = 5, 4


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who claims: a worker of a fleet, or a backend itself. `starts`: it counts as started at the hand-over.

    prefetch: how many attempts that have not started it may hold; 0: one, when it has let go of all else; None: it
    keeps its own count.
    """

    name: str
    worker_id: int | None = None
    starts: bool = True
    prefetch: int | None = None


# idle: it runs nothing, and what it holds it has held for NOT_READY_S.
HELD = f"""
SELECT count(*), count(*) FILTER (WHERE ended_at IS NULL AND started_at IS NULL),
       bool_and(ended_at IS NULL AND started_at IS NULL
                AND handed_at < clock_timestamp() - interval '{NOT_READY_S} s') AS idle
  FROM jobs_attempt WHERE worker_id = %s AND released_at IS NULL"""


QUEUED = """
SELECT 1 FROM jobs_grant g
 WHERE g.endpoint_id = %s AND EXISTS (SELECT 1 FROM jobs_job j WHERE j.grant_id = g.id AND j.state = 'IN_QUEUE')"""
LOOK = f"SELECT EXISTS ({QUEUED}), held.* FROM ({HELD}) held"


def look(endpoint_id: int, holder: Holder) -> tuple[bool, bool]:
    """Whether anything is queued, and whether the holder, a worker, has room, by one statement and no lock: here most
    polls of an idle fleet end."""
    queued, *held = sql.one(LOOK, [endpoint_id, holder.worker_id])
    return queued, holder.prefetch is None or _free(holder.prefetch, *held) > 0


def room(holder: Holder, n: int) -> tuple[int, bool]:
    """How many of n it may have now, under the worker's row's lock: two polls of it cannot both find room. And whether
    it has loaded models for a job before."""
    if holder.worker_id is None:
        return n, False
    locked = "SELECT model_hashes IS NOT NULL FROM jobs_worker WHERE id = %s FOR NO KEY UPDATE"
    row = sql.first(locked, [holder.worker_id])
    warm = bool(row and row[0])
    if holder.prefetch is None:
        return n, warm
    return min(n, _free(holder.prefetch, *sql.one(HELD, [holder.worker_id]))), warm


def _free(prefetch: int, held: int, unstarted: int, idle: bool | None) -> int:
    """One more, up to MOST_NOT_READY, for a worker that is idle because the files of what it holds are slow to come: no
    tenant's slow server keeps a GPU from the others' jobs."""
    free = prefetch - unstarted if prefetch else 1 - held
    return 1 if idle and free <= 0 and held < MOST_NOT_READY else free
