"""Where files live: one boto3 client for each place."""

import threading
from concurrent.futures import ThreadPoolExecutor

from storage import places
from tests.cast import unique


def test_threads_that_want_a_places_client_at_once_share_one() -> None:
    place = places.Place(
        endpoint_url="http://127.0.0.1:1",
        region="us-east-1",
        s3_bucket=unique("b"),
        prefix="",
        addressing="path",
        access_key_id="id",
        secret_access_key="secret",
    )
    start = threading.Barrier(4)

    def one(number: int) -> int:
        start.wait()
        return id(places.client(place))

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(one, range(4)))) == 1
