"""Bytes from anyone in, a small clean picture out: the only maker of ``PreparedImage``.

What leaves here is an upright RGB JPEG within the model's pixel budget, with no metadata: EXIF (GPS among it), XMP and
comments end here. Colour profiles are dropped too and their numbers taken for sRGB: what a caption says doesn't depend
on the last bit of saturation, and a hostile profile never reaches a colour engine.

The type is told by the content, never by a name. JPEG, PNG, WebP, GIF and AVIF are taken: what browsers and phones
make, each with a well-kept decoder. Of an animation the first frame counts. Everything here is CPU work without
waiting: callers run it in a bounded pool of threads (decoders release the interpreter's lock).
"""

import hashlib
import io
import logging
from math import sqrt

from PIL import Image, UnidentifiedImageError

from serving.image_headers import is_heif, jpeg_outline, webp_canvas
from trendrag.errors import ImageTooLarge, InvalidImage, RequestError
from trendrag.settings import ImageSettings
from trendrag.types import PreparedImage

log = logging.getLogger(__name__)

MIN_SIDE = 28
"""Shortest side sent, in pixels: one token of Qwen2.5-VL is 28×28."""
MAX_ASPECT = 50
"""Longest side : shortest side. Narrower pictures get white margins (Qwen2.5-VL's processor refuses 200 and above)."""
MAX_SCANS = 100
"""Passes of a progressive JPEG. Encoders write about 10; thousands in a small file keep a decoder busy for minutes."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
_TAKEN = "Send a JPEG, PNG, WebP, GIF or AVIF."
_QUALITY = 90
_ORIENTATION = 0x0112  # EXIF tag
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
    """Checks, decodes, turns upright, scales and re-encodes. A bare JPEG that already fits passes byte for byte.

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
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise _too_many_pixels(settings) from error
    except Exception as error:  # on hostile bytes Pillow raises whatever its parsing runs into
        log.info("an image did not decode: %s", type(error).__name__)
        raise InvalidImage(f"The image is damaged or cut short and can't be decoded. {_TAKEN}") from error


def check_size(size: int, settings: ImageSettings) -> None:
    """Raises ImageTooLarge where an image of ``size`` bytes is over the limit."""
    if size > settings.max_bytes:
        raise ImageTooLarge(
            f"The image has {_megabytes(size)}; at most {_megabytes(settings.max_bytes)} are taken. "
            "Send a smaller or more compressed one."
        )


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
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if is_heif(data):
            raise InvalidImage("The image is a HEIC or HEIF picture, which is not taken. Send it as JPEG.") from error
        raise InvalidImage(f"This is not an image of a known type, or its beginning is damaged. {_TAKEN}") from error
    with image:
        _check_pixels(image.size, settings)
        outline = jpeg_outline(data) if image.format in ("JPEG", "MPO") else None
        if outline is not None and outline.scans > MAX_SCANS:
            raise InvalidImage(f"The JPEG has {outline.scans} scans; at most {MAX_SCANS} are taken. Save it again.")
        turn = _UPRIGHT.get(_orientation(image))
        size, canvas = fit(*image.size, settings.model_pixels)
        fits = size == canvas == image.size
        if outline is not None and outline.bare and fits and image.mode == "RGB":
            image.load()  # decoded all the same: a truncated file must not pass
            return _prepared(data, *image.size)
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
    encoded = io.BytesIO()
    # A new image carries no metadata over; `info` (profile, EXIF, comment) is what Pillow would write along.
    picture.info.clear()
    picture.save(encoded, "JPEG", quality=_QUALITY)
    return _prepared(encoded.getvalue(), *picture.size)


def _prepared(data: bytes, width: int, height: int) -> PreparedImage:
    digest = hashlib.sha256(data).hexdigest()
    return PreparedImage(data=data, mime_type="image/jpeg", width=width, height=height, sha256=digest)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none. Damaged EXIF does not spoil a good picture."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - on hostile bytes Pillow raises whatever its parsing runs into
        return 1
    return value if isinstance(value, int) else 1


def _scale(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scaled while still in a mode where averaging pixels is meaningful (alpha is premultiplied by Pillow)."""
    if image.mode in ("P", "PA") or (image.mode in ("1", "L", "RGB") and image.has_transparency_data):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


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


def _too_many_pixels(settings: ImageSettings, size: tuple[int, int] | None = None) -> ImageTooLarge:
    found = f"{size[0]} × {size[1]} pixels" if size else "too many pixels"
    return ImageTooLarge(
        f"The image has {found}; at most {settings.max_pixels / 1e6:.3g} million are taken. Scale it down first."
    )


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size:,} bytes"
