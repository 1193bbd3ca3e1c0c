"""What can be read from an image's bytes before any decoder is let near them.

Knows two file layouts just well enough: a WebP's canvas size (Pillow's WebP reader allocates the whole canvas when it
opens a file, so its size has to be known earlier), and a JPEG's list of segments. Decoding is left to
``serving.images``; damaged files are left to the decoder, which refuses them.
"""

import re
from dataclasses import dataclass

# Two bytes that end entropy-coded data: FF and then anything but a stuffed zero, a restart marker or a fill byte.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_APP0, _APP14 = 0xE0, 0xEE
# Baseline and progressive frames, Huffman tables, quantisation tables, restart interval: nothing but picture.
_PICTURE = {0xC0, 0xC2, 0xC4, 0xDB, 0xDD, _SOS}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


@dataclass(frozen=True, slots=True)
class JpegOutline:
    """``scans`` counts the passes over the picture. ``bare`` is True where the file holds the picture and nothing else:
    no EXIF, XMP, colour profile, comment, thumbnail, and no byte after its end."""

    scans: int
    bare: bool


def jpeg_outline(data: bytes) -> JpegOutline:
    """Walks a JPEG's segments without decoding them. What doesn't parse is not ``bare``."""
    scans = 0
    bare = data[:2] == bytes((0xFF, _SOI))
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == _EOI:
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        # A JFIF header of 16 bytes has no thumbnail; Adobe's of 14 bytes only names the colour transform.
        known = marker in _PICTURE or (marker, length) in ((_APP0, 16), (_APP14, 14))
        bare = bare and known and length >= 2
        at += 2 + length
        if marker == _SOS:
            scans += 1
            found = _NEXT_MARKER.search(data, at)
            if found is None:
                return JpegOutline(scans, bare=False)
            at = found.start()
    return JpegOutline(scans, bare=bare and data[at:] == bytes((0xFF, _EOI)))


def webp_canvas(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels that a WebP file claims, or None where it is no WebP or too short to say.

    Layout: RFC 9649, sections 2.5 to 2.7.
    """
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def is_heif(data: bytes) -> bool:
    """True for HEIC and its kin, the pictures phones make that need another decoder than ours."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS
