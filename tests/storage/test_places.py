"""Where files live: what their URLs look like, and one boto3 client for each place."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from storage import places
from tests.cast import unique

IN_FRANKFURT = places.Place(
    endpoint_url="https://s3.eu-central-1.amazonaws.com",
    region="eu-central-1",
    s3_bucket="renders",
    prefix="out",
    addressing="virtual",
    access_key_id="AKIA",
    secret_access_key="secret",
)
AT_R2 = replace(
    IN_FRANKFURT,
    endpoint_url="https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com",
    region="auto",
    addressing="path",
)


@pytest.mark.parametrize(
    ("place", "begins", "region"),
    [
        (IN_FRANKFURT, "https://renders.s3.eu-central-1.amazonaws.com/out/k.png", "eu-central-1"),
        (replace(IN_FRANKFURT, addressing="path"), f"{IN_FRANKFURT.endpoint_url}/renders/out/k.png", "eu-central-1"),
        (AT_R2, f"{AT_R2.endpoint_url}/renders/out/k.png", "auto"),
        (replace(AT_R2, public_url="https://files.example.com"), "https://files.example.com/out/k.png", "auto"),
    ],
    ids=["virtual", "path", "r2", "public"],
)
def test_urls_name_the_s3_bucket_as_its_addressing_says_and_are_signed_for_its_region(
    place: places.Place, begins: str, region: str
) -> None:
    key = places.full_key(place, "k.png")
    read = places.sign_get(place, key, timedelta(hours=3))
    written, _ = places.sign_put(place, key, content_type="image/png", size=3)
    assert read.partition("?")[0] == begins
    assert written.partition("?")[0] == begins.replace("https://files.example.com", f"{place.endpoint_url}/renders")
    for url in (read, written):
        assert parse_qs(urlsplit(url).query)["X-Amz-Credential"][0].split("/")[2] == region
    assert parse_qs(urlsplit(read).query)["X-Amz-Expires"] == [str(3 * 3600)]


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
