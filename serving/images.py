"""Bytes from anyone in, a small clean picture out: the only maker of ``PreparedImage``.

What leaves here is an upright RGB JPEG, or a small PNG, within the model's pixel budget, with no metadata: EXIF (GPS
among it), XMP and comments end here. Colour profiles are dropped too and their numbers taken for sRGB: what a caption
says doesn't depend on the last bit of saturation, and a hostile profile never reaches a colour engine.

A JPEG that fits is sent on as it is but for what was taken out of it, and so is a PNG of plain RGB where a JPEG would
hardly be smaller: drawings and screenshots, whose letters a JPEG would blur. Both are what every model server takes.
All else is encoded anew: WebP, GIF and AVIF are not taken everywhere, and transparency has to be laid on white once.

The type is told by the content, never by a name. JPEG, PNG, WebP, GIF and AVIF are taken: what browsers and phones
make, each with a well-kept decoder. Of an animation the first frame counts. Everything here is CPU work without
waiting: callers run it in a bounded pool of threads (decoders release the interpreter's lock).
"""

import hashlib
import io
import logging
import os
from math import sqrt
from typing import Literal

from PIL import AvifImagePlugin, Image, UnidentifiedImageError
from pydantic import ConfigDict, TypeAdapter

from serving.image_headers import (
    Bare,
    TooManyPieces,
    bare,
    exif_orientation,
    is_avif,
    is_heif,
    odd_orientation_inside,
    webp_canvas,
    with_orientation,
)
from trendrag.errors import ImageTooLarge, InvalidImage, RequestError
from trendrag.settings import ImageSettings
from trendrag.types import PreparedImage

log = logging.getLogger(__name__)

# One thread a picture, as all other decoders: by itself this one starts as many as there are cores, beside a pool that
# leaves one of them to the streams. Pillow has no other way to say so.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

MIN_SIDE = 28
"""Shortest side sent, in pixels: one token of Qwen2.5-VL is 28×28."""
MAX_ASPECT = 50
"""Longest side : shortest side. Narrower pictures get white margins (Qwen2.5-VL's processor refuses 200 and above)."""
MAX_SCANS = 100
"""Passes of a progressive JPEG. Encoders write about 10; thousands in a small file keep a decoder busy for minutes."""
MAX_SCANNED_PIXELS = 1_000_000_000
"""Pixels times passes, about a second of work: 64 million in 15 passes, or a smaller picture in more."""
PNG_BYTES_PER_PIXEL = 0.5
"""A PNG up to this is sent on as it is. A photo has 0.2 to 0.4 as a JPEG of quality 90, and 1.5 and more as a PNG."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
_TAKEN = "Send a JPEG, PNG, WebP, GIF or AVIF."
_QUALITY = 90
_BASE64 = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64"))
_BASE64_STEP = 1 << 20  # a multiple of 4
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def prepare_image(data: bytes, settings: ImageSettings) -> PreparedImage:
    """Checks, decodes, turns upright, scales and encodes. The picture of a JPEG, or a small PNG, that already fits
    passes byte for byte.

    Raises:
        ImageTooLarge: more bytes or pixels than the settings allow. Pixels are counted before anything is decoded.
        InvalidImage: not an image, of a type that is not taken, or damaged.
    """
    check_size(len(data), settings)
    if not data:
        raise InvalidImage(f"The image is empty. {_TAKEN}")
    try:
        return _prepare(data, settings)
    except RequestError:
        raise
    except TooManyPieces as error:
        raise InvalidImage("The image's file is cut into too many pieces. Save it again.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise _too_many_pixels(settings) from error
    except Exception as error:  # on hostile bytes Pillow raises whatever its parsing runs into
        log.info("an image did not decode: %s", type(error).__name__)
        raise InvalidImage(f"The image is damaged or cut short and can't be decoded. {_TAKEN}") from error


def from_base64(text: str) -> bytes:
    """The bytes of an image in base64, with or without a ``data:`` prefix and line ends.

    Raises:
        InvalidImage: it is not base64.
    """
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidImage("image: a data: URL must look like data:image/jpeg;base64,....")
    try:
        try:
            return _decoded(text)
        except ValueError:
            return _decoded("".join(text.split()))  # folded into lines, as some encoders do
    except ValueError as error:
        raise InvalidImage("image: this is not valid base64. Encode the whole file, with its padding.") from error


def _decoded(text: str) -> bytes:
    # pydantic's decoder takes a quarter of the time of the standard library's. Both hold the interpreter's lock, so
    # large texts are done in pieces, between which streams get their turn.
    if len(text) % 4:
        raise ValueError("no padding")
    return b"".join(
        _BASE64.validate_strings(text[start : start + _BASE64_STEP]) for start in range(0, len(text), _BASE64_STEP)
    )


def check_size(size: int, settings: ImageSettings) -> None:
    """Raises ImageTooLarge where an image of ``size`` bytes is over the limit."""
    if size > settings.max_bytes:
        raise ImageTooLarge(
            f"The image has {_megabytes(size)}; at most {_megabytes(settings.max_bytes)} are taken. "
            "Send a smaller or more compressed one."
        )


def without_metadata(data: bytes, settings: ImageSettings) -> tuple[str, bytes]:
    """The media type and the file of an image that is passed on as it was sent, but for its metadata: the very picture,
    checked by what can be told without decoding it (bytes, type, pixels, passes), and how it is to be turned. Takes
    well under a millisecond. AVIF, whose metadata lies all over the file, is prepared anew, as ``prepare_image`` does.

    Raises ImageTooLarge and InvalidImage, as ``prepare_image`` does.
    """
    if is_avif(data):
        prepared = prepare_image(data, settings)
        return prepared.mime_type, prepared.data
    check_size(len(data), settings)
    try:
        canvas = webp_canvas(data)
        if canvas is not None:
            _check_pixels(canvas, settings)
        found = bare(data)
        with Image.open(io.BytesIO(found.data), formats=FORMATS) as image:
            _check_pixels(image.size, settings)
            _check_scans(found, image)
            kind = "JPEG" if image.format == "MPO" else image.format
    except RequestError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise _too_many_pixels(settings) from error
    except Exception as error:  # on hostile bytes Pillow raises whatever its parsing runs into
        raise InvalidImage(f"This is not an image of a known type, or its beginning is damaged. {_TAKEN}") from error
    return f"image/{kind}".lower(), with_orientation(found)


def fit(width: int, height: int, max_pixels: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size to scale a picture to, and the size of the canvas to centre it on (the same except for narrow strips).

    The canvas has sides of at least MIN_SIDE, an area of at most ``max_pixels`` (itself at least MIN_SIDE squared), and
    no side more than MAX_ASPECT times the other, up to rounding. Pictures are made larger only to reach MIN_SIDE.
    """
    aspect = min(MAX_ASPECT, max_pixels / MIN_SIDE**2)
    wide, high = max(width, height / aspect), max(height, width / aspect)
    scale = max(min(1.0, sqrt(max_pixels / (wide * high))), MIN_SIDE / min(wide, high))
    short = max(MIN_SIDE, round(min(wide, high) * scale))
    long = max(short, min(round(max(wide, high) * scale), max_pixels // short))
    if short * long > max_pixels:  # both rounded up: a near-square picture at the budget's edge
        short = long = int(sqrt(max_pixels))
    canvas = (long, short) if wide >= high else (short, long)
    return (
        max(1, min(canvas[0], round(width * scale))),
        max(1, min(canvas[1], round(height * scale))),
    ), canvas


def _prepare(data: bytes, settings: ImageSettings) -> PreparedImage:
    canvas = webp_canvas(data)
    if canvas is not None:
        _check_pixels(canvas, settings)
    if is_avif(data) and odd_orientation_inside(data):
        raise InvalidImage(f"The image's EXIF data is damaged. {_TAKEN}")
    found = bare(data)
    try:
        image = Image.open(io.BytesIO(found.data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if is_heif(data):
            raise InvalidImage("The image is a HEIC or HEIF picture, which is not taken. Send it as JPEG.") from error
        raise InvalidImage(f"This is not an image of a known type, or its beginning is damaged. {_TAKEN}") from error
    with image:
        _check_pixels(image.size, settings)
        _check_scans(found, image)
        turn = _UPRIGHT.get(_orientation(image, found))
        size, canvas = fit(*image.size, settings.model_pixels)
        fits = size == canvas == image.size
        if fits and turn is None and _passes(image, found):
            width, height = image.size
            # Decoded all the same, since a damaged file must not pass: an eighth of a JPEG's size costs less, and reads
            # every bit of it.
            image.draft(None, (1, 1))
            image.load()
            return _prepared(found.data, width, height, "image/png" if image.format == "PNG" else "image/jpeg")
        if not fits:
            # libjpeg decodes at 1/2, 1/4 or 1/8 of the size for less work; never below `size`.
            image.draft(None, size)
        image.load()
        picture = _to_rgb(_scale(image, size))
        if canvas != size:
            margins = Image.new("RGB", canvas, "white")
            margins.paste(picture, ((canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2))
            picture = margins
        if turn is not None:
            picture = picture.transpose(turn)
    return _prepared(_jpeg(picture), *picture.size, "image/jpeg")


def _passes(image: Image.Image, found: Bare) -> bool:
    """True where the file's picture may be sent on as it is."""
    if not found.plain or image.mode != "RGB":
        return False
    return image.format != "PNG" or len(found.data) <= PNG_BYTES_PER_PIXEL * image.width * image.height


def _jpeg(picture: Image.Image) -> bytes:
    # A new image carries no metadata over; `info` (profile, EXIF, comment) is what Pillow would write along.
    picture.info.clear()
    # Pillow lets go of the interpreter's lock where it encodes into a real file, and holds it (10 ms for a picture)
    # where it does into a buffer. Linux has files that are nowhere but in memory.
    if not hasattr(os, "memfd_create"):
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=_QUALITY)
        return encoded.getvalue()
    with open(os.memfd_create("jpeg"), "w+b") as file:  # noqa: PTH123 - it has no path
        picture.save(file, "JPEG", quality=_QUALITY)
        file.seek(0)
        return file.read()


def _prepared(data: bytes, width: int, height: int, mime_type: Literal["image/jpeg", "image/png"]) -> PreparedImage:
    digest = hashlib.sha256(data).hexdigest()
    return PreparedImage(data=data, mime_type=mime_type, width=width, height=height, sha256=digest)


def _orientation(image: Image.Image, found: Bare) -> int:
    """EXIF's orientation, 1 (upright) where there is none. Read by us: the rest of a hostile EXIF costs nothing so."""
    exif = image.info.get("exif")
    if isinstance(exif, bytes):  # AVIF
        return exif_orientation(exif.removeprefix(b"Exif\0\0"))
    return found.orientation


def _scale(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scaled while still in a mode where averaging pixels is meaningful (alpha is premultiplied by Pillow)."""
    if image.mode in ("P", "PA") or (image.mode in ("1", "L", "RGB") and image.has_transparency_data):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB: transparency on white, 16 bits a channel scaled to 8."""
    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys at 255 where it converts them, so that nearly all of them would turn white.
        image = image.convert("I").point(lambda grey: grey * (1 / 257)).convert("L")
    if image.mode in ("LA", "La", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _check_pixels(size: tuple[int, int], settings: ImageSettings) -> None:
    if size[0] * size[1] > settings.max_pixels:
        raise _too_many_pixels(settings, size)


def _check_scans(found: Bare, image: Image.Image) -> None:
    if found.scans > MAX_SCANS or found.scans * image.width * image.height > MAX_SCANNED_PIXELS:
        raise InvalidImage(f"The JPEG has {found.scans} scans, which is too many for its size. Save it again.")


def _too_many_pixels(settings: ImageSettings, size: tuple[int, int] | None = None) -> ImageTooLarge:
    found = f"{size[0]} × {size[1]} pixels" if size else "too many pixels"
    return ImageTooLarge(
        f"The image has {found}; at most {settings.max_pixels / 1e6:.3g} million are taken. Scale it down first."
    )


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size:,} bytes"
