"""Every error that TrendRAG raises on purpose.

    TrendragError
    ├── ConfigurationError        a setting is missing or contradictory
    ├── RequestError              the caller's input can't be used
    │   ├── NotSupported          the model in use can't do what is asked
    │   ├── InvalidImage          not an image, truncated, or of a type that is not taken
    │   ├── ImageTooLarge         too many bytes or pixels
    │   ├── AddressRefused        an image's address that is not fetched, whatever is there
    │   ├── KeyReused             one Idempotency-Key for two different requests
    │   └── TooManyJobs           the caller has enough that are not finished
    ├── RemoteImageError          the server at an image's address did not deliver
    │   └── RemoteImageTimeout    it took too long
    ├── Busy                      more is asked at once than is taken; the same may pass in a moment
    ├── SnapshotError             a trend snapshot can't be used
    │   ├── NoSnapshot            none has been published yet
    │   ├── CorruptSnapshot       one is there and does not verify
    │   └── ShelfError            the copy of the snapshots elsewhere can't be read or written
    ├── ModelError                the model server did not deliver
    │   ├── ModelUnavailable      it can't be reached, or is overloaded
    │   ├── ModelTimeout          a deadline passed
    │   ├── ModelRejected         it refused the request (4xx)
    │   └── ModelInterrupted      a stream ended before the model said that it was finished
    ├── StorageError              the service database can't be used now
    ├── ShuttingDown              this server ends, and takes or finishes nothing more
    ├── SourceError               a trend source did not deliver
    │   ├── FetchError            no usable answer over HTTP
    │   └── ParseError            an answer that is not in the source's format
    └── WeightsError              model weights are missing or do not match their checksum

``code`` is stable and machine-readable: it is what `Failed` events, HTTP answers and metrics carry.
Errors of libraries (faiss, HTTP clients, Pillow) are mapped to these once, in the adapter that calls the library.
Messages are for the user: they say what to do, and never hold a secret.
"""

from typing import ClassVar


class TrendragError(Exception):
    """``retry_after``: seconds after which asking again is worth while; None where nobody knows."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConfigurationError(TrendragError):
    code = "configuration"


class RequestError(TrendragError):
    code = "invalid_request"


class NotSupported(RequestError):
    code = "not_supported"


class InvalidImage(RequestError):
    code = "invalid_image"


class ImageTooLarge(RequestError):
    code = "image_too_large"


class KeyReused(RequestError):
    code = "idempotency_key_reused"


class TooManyJobs(RequestError):
    code = "too_many_jobs"


class AddressRefused(RequestError):
    code = "address_refused"


class RemoteImageError(TrendragError):
    code = "remote_image_failed"


class RemoteImageTimeout(RemoteImageError):
    code = "remote_image_timeout"


class Busy(TrendragError):
    code = "busy"


class SnapshotError(TrendragError):
    code = "snapshot"


class NoSnapshot(SnapshotError):
    code = "no_snapshot"


class CorruptSnapshot(SnapshotError):
    code = "corrupt_snapshot"


class ShelfError(SnapshotError):
    code = "shelf"


class ModelError(TrendragError):
    """
    Args:
        retriable: nothing came of the call, and the same call may well succeed on another try.
        server_failed: it speaks against the server's health, not against the request or its sender. Each kind has its
            own default.
    """

    code = "model_error"
    _server_failed: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        retriable: bool = False,
        server_failed: bool | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.retriable = retriable
        self.server_failed = self._server_failed if server_failed is None else server_failed


class ModelUnavailable(ModelError):
    code = "model_unavailable"
    _server_failed = True


class ModelTimeout(ModelError):
    code = "model_timeout"
    _server_failed = True


class ModelRejected(ModelError):
    code = "model_rejected"


class ModelInterrupted(ModelError):
    code = "model_interrupted"
    _server_failed = True


class ShuttingDown(TrendragError):
    code = "shutting_down"


class StorageError(TrendragError):
    code = "storage_unavailable"


class SourceError(TrendragError):
    code = "source_error"


class FetchError(SourceError):
    code = "fetch_failed"


class ParseError(SourceError):
    code = "parse_failed"


class WeightsError(TrendragError):
    code = "weights"
