"""A server that speaks S3, for tests over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer


@contextmanager
def s3_server() -> Iterator[Any]:
    """The file system of a new server, which ``s3://`` is for as long. The requests are real; signatures are not looked
    at."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        s3 = fsspec.get_filesystem_class("s3")
        try:
            s3.clear_instance_cache()  # one that is left from before would know another server
            yield fsspec.filesystem("s3")
        finally:
            s3.clear_instance_cache()
            server.stop()
