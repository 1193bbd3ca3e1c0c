"""The images of a chat request: out of their `data:` URLs, or fetched by us. The model server itself fetches none, and
is sent none with metadata."""

import base64
import binascii
from collections.abc import Awaitable, Callable

from serving.http.errors import HttpError
from serving.http.openai_schemas import MAX_IMAGES, ChatBody, ImageUrl
from serving.image_headers import is_avif
from serving.image_pool import ImagePool
from serving.images import without_metadata
from trendrag.errors import InvalidImage
from trendrag.settings import ImageSettings

Fetch = Callable[[str], Awaitable[bytes]]
"""From an address to the bytes of an image. Raises TrendragError or HttpError, with a message for the caller."""


def data_url_bytes(url: str) -> bytes:
    """Raises InvalidImage where it is not `data:image/…;base64,…`."""
    head, _, text = url.partition(",")
    if head[:5].lower() != "data:" or not head.lower().endswith(";base64"):
        raise InvalidImage("image_url: a data: URL must look like data:image/jpeg;base64,....")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise InvalidImage("image_url: this is not valid base64. Encode the whole file, with its padding.") from error


def is_data_url(url: str) -> bool:
    return url[:5].lower() == "data:"


def strip_data_urls(body: ChatBody, settings: ImageSettings) -> list[ImageUrl]:
    """Checks the images that a request carries, by what can be told without decoding them, and takes their metadata
    out. CPU work without waiting.

    Returns those that take longer, for ``replace``: addresses, and AVIF.

    Raises:
        HttpError, InvalidImage, ImageTooLarge: one can't be passed on.
    """
    images = body.images()
    if len(images) > MAX_IMAGES:
        raise HttpError(400, "invalid_request", f"messages: at most {MAX_IMAGES} images are taken in one request.")
    longer = []
    for image in images:
        if not is_data_url(image.url) or is_avif(data := data_url_bytes(image.url)):
            longer.append(image)
        else:
            kind, picture = without_metadata(data, settings)
            if picture != data or not image.url.startswith(f"data:{kind};base64,"):
                image.url = _data_url(kind, picture)
    return longer


async def replace(image: ImageUrl, fetch: Fetch, pool: ImagePool, settings: ImageSettings) -> None:
    """Makes a data: URL without metadata of an image, for a server that must not fetch.

    Raises what ``fetch`` raises, and InvalidImage, ImageTooLarge and Busy.
    """
    data = data_url_bytes(image.url) if is_data_url(image.url) else await fetch(image.url)
    image.url = await pool.run(lambda: _data_url(*without_metadata(data, settings)))


def _data_url(kind: str, picture: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(picture).decode('ascii')}"
