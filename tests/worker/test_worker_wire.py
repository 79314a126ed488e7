"""Where a bucket is, by endpointUrl and bucketName as requests carry them (rules.md 22)."""

import pytest

from worker.place import BucketPlace, resolve_bucket

R2 = "0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"


def place(endpoint_url: str, bucket_name: str | None = None) -> tuple[str, str, str, str]:
    found = resolve_bucket(endpoint_url, bucket_name)
    return found.endpoint_url, found.bucket, found.prefix, found.region


def test_the_references_own_example_is_read() -> None:
    assert resolve_bucket("https://bucket.s3.region.amazonaws.com`", "bucket-subfolder") == BucketPlace(
        endpoint_url="https://s3.region.amazonaws.com", bucket="bucket", prefix="bucket-subfolder", region="region"
    )


@pytest.mark.parametrize(
    ("endpoint_url", "expected"),
    [
        ("https://s3.eu-west-1.amazonaws.com", ("https://s3.eu-west-1.amazonaws.com", "name", "", "eu-west-1")),
        ("https://s3.amazonaws.com/", ("https://s3.amazonaws.com", "name", "", "us-east-1")),
        ("https://b.s3.amazonaws.com", ("https://s3.amazonaws.com", "b", "name", "us-east-1")),
        (
            "https://my.b.s3-eu-west-1.amazonaws.com",
            ("https://s3-eu-west-1.amazonaws.com", "my.b", "name", "eu-west-1"),
        ),
        (
            "https://b.s3.eu-west-1.amazonaws.com/in/",
            ("https://s3.eu-west-1.amazonaws.com", "b", "in/name", "eu-west-1"),
        ),
        (
            "https://s3.cn-north-1.amazonaws.com.cn",
            ("https://s3.cn-north-1.amazonaws.com.cn", "name", "", "cn-north-1"),
        ),
        (f"https://{R2}", (f"https://{R2}", "name", "", "auto")),
        (f"https://{R2}/b", (f"https://{R2}", "b", "name", "auto")),
        (f"https://b.{R2}", (f"https://{R2}", "b", "name", "auto")),
        ("https://b.fra1.digitaloceanspaces.com", ("https://fra1.digitaloceanspaces.com", "b", "name", "fra1")),
        (
            "https://s3.us-west-004.backblazeb2.com",
            ("https://s3.us-west-004.backblazeb2.com", "name", "", "us-west-004"),
        ),
        ("https://storage.googleapis.com", ("https://storage.googleapis.com", "name", "", "auto")),
        ("http://127.0.0.1:8333", ("http://127.0.0.1:8333", "name", "", "us-east-1")),
        ("http://[::1]:8333/b//sub/", ("http://[::1]:8333", "b", "sub/name", "us-east-1")),
        ("minio.example.com:9000", ("https://minio.example.com:9000", "name", "", "us-east-1")),
        ("https://s3-backup.example.com", ("https://s3-backup.example.com", "name", "", "us-east-1")),
    ],
)
def test_the_bucket_is_in_the_host_the_path_or_the_name(endpoint_url: str, expected: tuple[str, ...]) -> None:
    assert place(endpoint_url, "name") == expected


def test_a_name_with_slashes_is_bucket_and_prefix() -> None:
    assert place("http://127.0.0.1:8333", " b/sub/dir/ ")[1:3] == ("b", "sub/dir")


@pytest.mark.parametrize("name", [None, "", " / "])
def test_no_bucket_anywhere_is_refused(name: str | None) -> None:
    with pytest.raises(ValueError, match="bucketName is missing"):
        resolve_bucket("https://s3.eu-west-1.amazonaws.com", name)


@pytest.mark.parametrize(
    "url", ["", "ftp://x/b", "https://", "https://u:p@x/b", "https://x:99999/b", "https://x/b?y=1"]
)
def test_what_is_no_plain_endpoint_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"endpointUrl|Port"):
        resolve_bucket(url, "b")
