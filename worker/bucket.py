"""The caller's own S3 bucket, for a worker alone on RunPod: tobucket, s3Config or the BUCKET_* settings."""

import asyncio
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from worker.aside import at_most
from worker.errors import JobError
from worker.files import OutputFile, Stored
from worker.place import BucketPlace, resolve_bucket

URL_LIFE_S = 7 * 24 * 3600  # the longest that S3 signs for


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """An S3 bucket with the right to write into it."""

    place: BucketPlace
    access_id: str = field(repr=False)
    access_secret: str = field(repr=False)

    @classmethod
    def of(
        cls, *, endpoint_url: Any, name: Any, access_id: Any, access_secret: Any, region: str | None = None
    ) -> "Bucket":
        """ValueError says which value is missing or wrong, by the name that requests give it."""
        for key, value in (("endpointUrl", endpoint_url), ("accessId", access_id), ("accessSecret", access_secret)):
            if not isinstance(value, str) or not value:
                raise ValueError(f"{key} is missing or not text")
        if name is not None and not isinstance(name, str):
            raise ValueError("bucketName is not text")
        place = resolve_bucket(endpoint_url, name)
        place = replace(place, region=region or place.region)
        return cls(place=place, access_id=access_id, access_secret=access_secret)

    async def store(self, files: Sequence[OutputFile], job_id: str) -> list[Stored | JobError]:
        """Each file as an URL that is good for seven days, or why it could not be stored."""
        client = await asyncio.to_thread(self._client)
        return await at_most(4, lambda file: asyncio.to_thread(self._put, client, file, job_id), files)

    def _client(self) -> Any:
        # Imported here: boto3 takes half a second, and behind Hearth nothing needs it.
        import boto3
        from botocore.config import Config

        style = "virtual" if "amazonaws.com" in self.place.endpoint_url else "path"
        return boto3.client(
            "s3",
            endpoint_url=self.place.endpoint_url,
            region_name=self.place.region,
            aws_access_key_id=self.access_id,
            aws_secret_access_key=self.access_secret,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": style},
                # boto3's newer checksums break R2 and GCS
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                connect_timeout=15,
                read_timeout=60,
                retries={"mode": "standard", "total_max_attempts": 3},
            ),
        )

    def _put(self, client: Any, file: OutputFile, job_id: str) -> Stored | JobError:
        from botocore.exceptions import BotoCoreError, ClientError

        name = f"{secrets.token_hex(4)}{PurePosixPath(file.name).suffix}"
        key = "/".join(part for part in (self.place.prefix, job_id, name) if part)
        where = {"Bucket": self.place.bucket, "Key": key}
        try:
            client.put_object(Body=file.body.reader(), ContentType=file.content_type, ContentLength=file.size, **where)
            url = client.generate_presigned_url("get_object", Params=where, ExpiresIn=URL_LIFE_S)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return file.failed(
                f"S3 at {self.place.endpoint_url} answered {status} {error.response['Error'].get('Code')}"
            )
        except (BotoCoreError, OSError) as error:
            return file.failed(f"S3 at {self.place.endpoint_url}: {error}")
        return Stored(entry=url, asset=file.asset(id=str(uuid.uuid4()), key=None))
