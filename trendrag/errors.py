"""Every error that TrendRAG raises on purpose.

    TrendragError
    ├── ConfigurationError        a setting is missing or contradictory
    ├── RequestError              the caller's input can't be used
    │   ├── InvalidImage          not an image, truncated, or of a type that is not taken
    │   └── ImageTooLarge         too many bytes or pixels
    ├── SnapshotError             a trend snapshot can't be used
    │   ├── NoSnapshot            none has been published yet
    │   ├── CorruptSnapshot       one is there and does not verify
    │   └── ShelfError            the copy of the snapshots elsewhere can't be read or written
    ├── ModelError                the model server did not deliver
    │   ├── ModelUnavailable      it can't be reached, or is overloaded
    │   ├── ModelTimeout          a deadline passed
    │   ├── ModelRejected         it refused the request (4xx)
    │   └── ModelInterrupted      a stream ended before the model said that it was finished
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
    code: ClassVar[str] = "internal"


class ConfigurationError(TrendragError):
    code = "configuration"


class RequestError(TrendragError):
    code = "invalid_request"


class InvalidImage(RequestError):
    code = "invalid_image"


class ImageTooLarge(RequestError):
    code = "image_too_large"


class SnapshotError(TrendragError):
    code = "snapshot"


class NoSnapshot(SnapshotError):
    code = "no_snapshot"


class CorruptSnapshot(SnapshotError):
    code = "corrupt_snapshot"


class ShelfError(SnapshotError):
    code = "shelf"


class ModelError(TrendragError):
    code = "model_error"


class ModelUnavailable(ModelError):
    code = "model_unavailable"


class ModelTimeout(ModelError):
    code = "model_timeout"


class ModelRejected(ModelError):
    code = "model_rejected"


class ModelInterrupted(ModelError):
    code = "model_interrupted"


class SourceError(TrendragError):
    code = "source_error"


class FetchError(SourceError):
    code = "fetch_failed"


class ParseError(SourceError):
    code = "parse_failed"


class WeightsError(TrendragError):
    code = "weights"
