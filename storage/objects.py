"""What this process asks of S3 itself about one object. Nothing here touches the database."""

from dataclasses import dataclass
from uuid import UUID

from botocore.exceptions import BotoCoreError, ClientError

from storage.places import Place, client
from worker.wire import Found


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A blob's object, of so many bytes; `place`: None if S3 can no longer be asked."""

    id: UUID
    place: Place | None
    key: str
    bytes: int


def look(wanted: Wanted) -> Found:
    """Whether it is there, whole. What S3 may not tell (a bucket to write only answers 403) is not known."""
    id = str(wanted.id)
    if wanted.place is None:
        return Found(id=id, there=None)
    try:
        head = client(wanted.place).head_object(Bucket=wanted.place.s3_bucket, Key=wanted.key)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return Found(id=id, there=False if status == 404 else None, status=status, code=error.response["Error"]["Code"])
    except BotoCoreError as error:
        return Found(id=id, there=None, code=type(error).__name__)
    return Found(id=id, there=head["ContentLength"] == wanted.bytes, status=200)
