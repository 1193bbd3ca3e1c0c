"""A small picture to recognise a caption by."""

import io
import logging

from PIL import Image

log = logging.getLogger(__name__)

SIDE = 320
"""Longest side, in pixels."""
_AT_LEAST = 240
"""Longest side where a decoder that halves gets there by itself: scaling from 400 to 320 costs twice the decoding."""
MIME_TYPE = "image/jpeg"
_QUALITY = 72


def thumbnail(data: bytes) -> bytes | None:
    """A JPEG of at most SIDE × SIDE pixels, never larger than the picture in ``data`` (that of a ``PreparedImage``);
    None where that can't be decoded. CPU work: call it in a pool."""
    made = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            scale = min(1.0, _AT_LEAST / max(image.size))
            # libjpeg decodes at 1/2, 1/4 or 1/8 for less work, never below what is asked for.
            image.draft("RGB", (int(image.width * scale), int(image.height * scale)))
            image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
            small = image.convert("RGB")
            small.info.clear()
            small.save(made, "JPEG", quality=_QUALITY)
    except Exception as error:  # noqa: BLE001 - a caption is worth keeping without one
        log.warning("no thumbnail could be made: %s", type(error).__name__)
        return None
    return made.getvalue()
