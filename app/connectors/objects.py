"""Objects of an S3-compatible store, read into files. Needs the extra ``s3``.

Credentials, region and endpoint are found as the AWS SDK finds them.
"""

import re
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from app.connectors.interface import ConnectorUnusable, Unfit

__all__ = ["ObjectStore", "sentence"]

MAX_BYTES = 4 * 1024**3
GONE = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion"})


class ObjectStore:
    """For many threads."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        """Objects larger than ``max_bytes`` are not read.

        Raises:
            ConnectorUnusable: there are no credentials, or no region.
        """
        self._max_bytes = max_bytes
        try:
            self._s3 = boto3.client("s3")
        except BotoCoreError as error:
            raise ConnectorUnusable(f"The store of objects can't be used: {sentence(error)}") from error

    def fetch(self, bucket: str, key: str, version: str | None, folder: Path) -> Path:
        """Bring an object into ``folder``.

        Raises:
            Unfit: it is gone, or too large.
            OSError: it may go better later.
        """
        which: dict[str, Any] = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
        # A key may be anything; a name of a file, and of no other folder, is made of it.
        target = folder / (re.sub(r"[^\w. -]", "_", key.rpartition("/")[2])[-100:].lstrip(".") or "object")
        try:
            answer = self._s3.get_object(**which)
            if answer["ContentLength"] > self._max_bytes:
                raise Unfit(f"The object is larger than {self._max_bytes} bytes.")
            with target.open("wb") as file:
                for chunk in answer["Body"].iter_chunks(1 << 20):
                    file.write(chunk)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in GONE:
                raise Unfit("The object is no longer there.") from error
            raise OSError(0, sentence(error)) from error
        except BotoCoreError as error:
            raise OSError(0, sentence(error)) from error
        return target

    def close(self) -> None:
        """Let go of connections."""
        self._s3.close()


def sentence(error: BotoCoreError | ClientError) -> str:
    """Without what may be a credential or an address."""
    if isinstance(error, ClientError):
        return f"{error.response.get('Error', {}).get('Code', 'refused')}."
    return f"{type(error).__name__}."
