"""A bucketName that no key can begin with is refused before a GPU runs: its files could never be stored."""

import pytest

from tests.cast import WORKFLOW
from tests.wire.api import Api, check_refusal, nothing_stored

BUCKET = {"accessId": "A", "accessSecret": "S", "endpointUrl": "https://s3.example.com/renders"}


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a" * 1500], ids=["NUL", "new line", "long"])
def test_a_bucket_name_that_no_key_can_begin_with_is_refused(own_acme: Api, name: str) -> None:
    with nothing_stored():
        body = {"input": {"workflow": WORKFLOW, "tobucket": BUCKET | {"bucketName": name}}}
        check_refusal(own_acme.post("run", body), 400)
