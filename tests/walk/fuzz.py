"""`python -m tests.walk.fuzz URL --examples N`: requests that Schemathesis makes of the OpenAPI document, sent to a web
process by two tenants, about their own and each other's things.

No answer is a 500, each is one that the document tells, and none tells the one tenant of the other. The same requests
each time. A process of its own, since Schemathesis changes Hypothesis for all that runs beside it.
"""

import argparse
import itertools
import sys
import time
from base64 import b64encode
from typing import Any

import orjson
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.generation.case import Case
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi import checks

from tests.cast import WORKFLOW
from tests.walk.routes import Walked
from tests.walk.things import Acme, thing

from accounts.models import ApiKey  # isort: skip
from drf_spectacular.generators import SchemaGenerator  # isort: skip

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
WAIT_MS = 1000  # so long a request waits at most for a job that nobody runs
QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def operations() -> list[APIOperation]:
    made = SchemaGenerator().get_schema(request=None, public=True)
    document = orjson.loads(orjson.dumps(made, default=str))
    loaded = schemathesis.openapi.from_dict(document, config=schemathesis.Config())
    return [found.ok() for found in loaded.get_all_operations()]


class Tenant:
    """One of the two, with all scopes, and what it has for the parameters of an operation's path."""

    def __init__(self, operation: APIOperation) -> None:
        acme = Acme()
        self.name = acme.tenant.name
        self.headers = {"Authorization": f"Bearer {acme.client.new_key(scopes=ApiKey.Scope.values)}"}
        parameters = Walked(operation.path, ()).parameters
        self.things = {one.partition("{")[2][:-1]: thing(acme, one).real for one in parameters}


@st.composite
def cases(draw: st.DrawFn, strategies: list[st.SearchStrategy[Case]], tenants: list[Tenant]) -> tuple[Case, Tenant]:
    """A request, and who sends it. What its path names is mostly there; its body is sometimes a job. Half of them have
    something in them that the document does not allow."""
    case = draw(draw(st.sampled_from(strategies)))
    if owner := draw(st.sampled_from([*tenants, None])):
        case.path_parameters |= owner.things
    if isinstance(case.body, dict) and case.path.startswith("/v2/") and draw(st.booleans()):
        case.body["input"] = {"workflow": WORKFLOW}
    query = case.query
    if "wait" in case.operation.query and isinstance(query.get("wait", WAIT_MS), int):
        query["wait"] = min(query.get("wait", WAIT_MS), WAIT_MS)
    if "cursor" in query and draw(st.booleans()):
        query["cursor"] = b64encode(f"p={query['cursor']}".encode()).decode()
    return case, draw(st.sampled_from(tenants))


def fuzz(operation: APIOperation, url: str, session: requests.Session, examples: int) -> int:
    """How many requests there were."""
    tenants = [Tenant(operation), Tenant(operation)]
    strategies = [operation.as_strategy(mode) for mode in GenerationMode]
    sent = itertools.count()

    @settings(max_examples=examples, derandomize=True, phases=[Phase.generate], **QUIET)
    @given(cases(strategies, tenants))
    def send(made: tuple[Case, Tenant]) -> None:
        case, sender = made
        next(sent)
        answered = case.call(base_url=url, session=session, headers=sender.headers, timeout=60)
        case.validate_response(answered, checks=CHECKS)
        assert not any(other.name in answered.text for other in tenants if other is not sender), "told of the other"

    send()
    return next(sent)


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("url")
    arguments.add_argument("--examples", type=int, default=10)
    given_: Any = arguments.parse_args()
    failed = 0
    with requests.Session() as session:
        for operation in operations():
            begun = time.monotonic()
            try:
                sent = fuzz(operation, given_.url, session, given_.examples)
            except (Exception, FailureGroup) as error:
                failed, sent = failed + 1, 0
                print(f"--- {operation.label}\n{error}")
            print(f"{operation.label}: {sent} requests in {time.monotonic() - begun:.1f} s")
    print(f"{failed} operations failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
