"""Images as small pictures that are part of the page."""

import base64
from pathlib import Path

from serving.images import prepare_image
from trendrag.errors import RequestError
from trendrag.settings import ImageSettings

_PIXELS = 48_000
"""Some 253 by 190."""


class Pictures:
    """Reads each file once; what is no image of ours to take, or isn't there, has no picture."""

    def __init__(self) -> None:
        self._settings = ImageSettings(model_pixels=_PIXELS)
        self._known: dict[str, str | None] = {}

    def address(self, path: str | None) -> str | None:
        """A ``data:`` address of the image at ``path``; None where it can't be shown."""
        if path is None:
            return None
        if path not in self._known:
            self._known[path] = self._read(Path(path))
        return self._known[path]

    def _read(self, path: Path) -> str | None:
        try:
            if not path.is_file() or path.stat().st_size > self._settings.max_bytes:
                return None
            image = prepare_image(path.read_bytes(), self._settings)
        except (OSError, ValueError, RequestError):
            return None
        return f"data:{image.mime_type};base64,{base64.b64encode(image.data).decode('ascii')}"
