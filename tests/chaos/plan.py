"""What a run will do: who submits what, and who is killed when. A pure function of the seed and of the run's size."""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["good", "failing", "retried", "cancelled", "hurried", "overlong"]
Mood = Literal["well", "failing", "slow", "deaf", "busy"]
How = Literal["kill", "kill group", "kill backend", "term", "pause", "freeze"]

# Of 100 jobs. failing: in a node; retried: the same, and its client asks for it once more; hurried: may wait for 10 s;
# overlong: runs longer than its executionTimeout.
KINDS: dict[Kind, int] = {"good": 62, "failing": 8, "retried": 5, "cancelled": 12, "hurried": 11, "overlong": 2}
TTL_MS, EXECUTION_TIMEOUT_MS = 10_000, 5_000
ENDPOINT = "comfyui"
# Of the receiver of webhooks, for a POST each. failing: answers 500; slow: after seconds; deaf: hangs up without an
# answer; busy: 429 and Retry-After.
MOODS: dict[Mood, int] = {"well": 6, "failing": 2, "slow": 1, "deaf": 2, "busy": 1}
SUBMITTED = 0.9  # of the time of the faults: the last ones hit what is left


@dataclass(frozen=True, kw_only=True)
class TenantPlan:
    weight: float
    max_running: int | None


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """at_s: when it is submitted, and cancel_after_s: how much later its client cancels it; run_s: how long it runs."""

    number: int
    tenant: int
    at_s: float
    kind: Kind
    run_s: float
    pictures: int
    sync: bool
    low_priority: bool
    cancel_after_s: float | None = None

    @property
    def once(self) -> bool:
        """Whether its client sends an Idempotency-Key."""
        return self.number % 4 != 0

    @property
    def told(self) -> bool:
        """Whether its client names a webhook."""
        return self.number % 5 != 4

    @property
    def fails(self) -> bool:
        return self.kind in ("failing", "retried")

    def body(self, token: str, webhook: str) -> dict[str, Any]:
        """The request. token is in the name of each picture and, as ComfyUI writes the workflow there, inside it."""
        policy: dict[str, Any] = {"lowPriority": self.low_priority}
        if self.kind == "hurried":
            policy["ttl"] = TTL_MS
        if self.kind == "overlong":
            policy["executionTimeout"] = EXECUTION_TIMEOUT_MS
        own = {"webhook": webhook} if self.told else {}
        return {"input": {"workflow": self.workflow(token)}, "policy": policy, **own}

    def workflow(self, token: str) -> dict[str, Any]:
        size = {"width": 16, "height": 16, "batch_size": 1, "color": self.number}
        graph: dict[str, Any] = {
            "1": {"class_type": "EmptyImage", "inputs": size},
            "2": {"class_type": "StandinSleep", "inputs": {"seconds": self.run_s, "image": ["1", 0]}},
        }
        last = "2"
        if self.fails:
            wider = {"image": ["2", 0], "blur_radius": 31, "sigma": 1.0}  # than the picture: it fails when it runs
            graph["3"] = {"class_type": "ImageBlur", "inputs": wider}
            last = "3"
        if self.number % 3 == 0:
            graph["show"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
        for number in range(self.pictures):
            inputs = {"images": [last, 0], "filename_prefix": f"{token}-{number}"}
            graph[f"save{number}"] = {"class_type": "SaveImage", "inputs": inputs}
        return graph


@dataclass(frozen=True, kw_only=True)
class Fault:
    """part: as in run.json, or "instance". pick: which one, where there are several. for_s: length of a pause."""

    at_s: float
    part: str
    how: How
    pick: float
    for_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Blow:
    """One kind of fault. copies: how often it is in the deck; calm_s: no other fault for so long; for_s: its pauses."""

    part: str
    how: How
    copies: int
    calm_s: float = 1.5
    for_s: tuple[float, float] = (0.0, 0.0)


BLOWS = (
    Blow(part="web", how="kill", copies=5),
    Blow(part="web", how="term", copies=2),
    Blow(part="web", how="pause", copies=2, for_s=(1, 5)),
    Blow(part="tasks-fast", how="kill", copies=2),
    Blow(part="tasks-slow", how="kill", copies=2),
    Blow(part="tasks-slow", how="pause", copies=1, for_s=(1, 8)),
    Blow(part="sweeper", how="kill", copies=3),
    Blow(part="sweeper", how="term", copies=1),
    Blow(part="sweeper", how="pause", copies=2, for_s=(2, 8)),
    Blow(part="deliverer", how="kill", copies=3),
    Blow(part="deliverer", how="term", copies=1),
    Blow(part="deliverer", how="pause", copies=1, for_s=(1, 8)),
    Blow(part="worker", how="kill", copies=6),
    Blow(part="worker", how="kill group", copies=4),
    Blow(part="worker", how="term", copies=4),
    Blow(part="worker", how="pause", copies=3, for_s=(1, 15)),
    Blow(part="worker", how="freeze", copies=2, for_s=(1, 15)),
    Blow(part="comfyui", how="kill", copies=4),
    Blow(part="comfyui", how="pause", copies=2, for_s=(1, 6)),
    Blow(part="postgres", how="kill", copies=3, calm_s=4),
    Blow(part="postgres", how="kill backend", copies=3, calm_s=4),
    Blow(part="postgres", how="pause", copies=2, calm_s=4, for_s=(1, 4)),
    Blow(part="s3", how="kill", copies=3, calm_s=4),
    Blow(part="s3", how="pause", copies=2, calm_s=4, for_s=(1, 5)),
    Blow(part="instance", how="kill", copies=1, calm_s=12),
    Blow(part="instance", how="term", copies=1, calm_s=12),
)
SEVERAL = ("worker", "comfyui")


@dataclass(frozen=True, kw_only=True)
class Size:
    """seconds: how long faults fall."""

    jobs: int = 2000
    tenants: int = 20
    workers: int = 4
    seconds: float = 300.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    seed: int
    size: Size
    tenants: list[TenantPlan]
    jobs: list[JobPlan]
    faults: list[Fault]
    moods: list[Mood]  # of one POST after the other; in the end the receiver is well

    def json(self) -> dict[str, Any]:
        return asdict(self)


def make(seed: int, size: Size) -> Plan:
    """Each part has dice of its own, so that a run with more jobs has the same faults."""
    jobs, tenants, faults, moods = (random.Random(f"{seed} {what}") for what in ("jobs", "tenants", "faults", "moods"))
    return Plan(
        seed=seed,
        size=size,
        tenants=[_tenant(tenants) for _ in range(size.tenants)],
        jobs=sorted((_job(jobs, number, size) for number in range(size.jobs)), key=lambda job: job.at_s),
        faults=list(_faults(faults, size)),
        moods=list(_moods(moods, size.jobs)),
    )


def _moods(dice: random.Random, n: int) -> Iterator[Mood]:
    """Dealt as the faults are."""
    for _ in range(0, n, sum(MOODS.values())):
        deck = [mood for mood, copies in MOODS.items() for _ in range(copies)]
        dice.shuffle(deck)
        yield from deck


def _tenant(dice: random.Random) -> TenantPlan:
    return TenantPlan(weight=dice.choice([0.5, 1.0, 1.0, 2.0]), max_running=dice.choice([None, None, 1, 2, 3]))


def _job(dice: random.Random, number: int, size: Size) -> JobPlan:
    (kind,) = dice.choices(list(KINDS), KINDS.values())
    return JobPlan(
        number=number,
        tenant=dice.randrange(size.tenants),
        at_s=round(dice.uniform(0, SUBMITTED * size.seconds), 3),
        kind=kind,
        run_s=60.0 if kind == "overlong" else round(min(dice.expovariate(4), 3), 2),
        pictures=dice.choice([1, 1, 2]),
        sync=dice.random() < 0.2 and kind != "cancelled",
        low_priority=dice.random() < 0.1,
        cancel_after_s=round(dice.uniform(0, 3), 2) if kind == "cancelled" else None,
    )


def _faults(dice: random.Random, size: Size) -> Iterator[Fault]:
    """Dealt from a shuffled deck, so that each kind comes; the first after the instance has run for a moment."""
    at_s = 2.0
    while True:
        deck = [blow for blow in BLOWS for _ in range(blow.copies)]
        dice.shuffle(deck)
        for blow in deck:
            number = f"-{1 + dice.randrange(size.workers)}" if blow.part in SEVERAL else ""
            for_s = round(dice.uniform(*blow.for_s), 2)
            if at_s > size.seconds:
                return
            yield Fault(at_s=round(at_s, 2), part=blow.part + number, how=blow.how, pick=dice.random(), for_s=for_s)
            at_s += blow.calm_s * dice.uniform(1, 2.5)
