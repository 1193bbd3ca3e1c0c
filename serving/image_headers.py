"""What can be read from an image's bytes before any decoder is let near them.

Knows a few file layouts just well enough to take the picture out of a file and leave the rest behind: metadata (EXIF
with its GPS, XMP, profiles, comments), thumbnails, further frames, and what is hidden after the end. So that neither
leaves here, nor reaches the decoder's own parsers, which a few megabytes of it keep busy for a long time. Nothing is
decoded here; damaged files are left to the decoder, which refuses them.
"""

import re
import struct
import zlib
from dataclasses import dataclass

MAX_PIECES = 20_000
"""Segments of a JPEG, chunks of a PNG, blocks of a GIF. Encoders write a few thousand for the largest picture; each
costs a decoder some microseconds, whatever is in it."""
MAX_SUBBLOCKS = 400_000
"""Of at most 255 bytes each, in a GIF."""

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_ALONE = {0x01, _SOI, *range(0xD0, 0xD8)}  # markers without a length
_MARKER = re.compile(rb"\xff([^\x00\xff])")
# Two bytes that end entropy-coded data: FF and then anything but a stuffed zero, a restart marker or a fill byte.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Baseline and progressive frames, Huffman tables, quantisation tables, restart interval: what every decoder knows.
_COMMON = {0xC0, 0xC2, 0xC4, 0xDB, 0xDD, _SOS, _APP0, _APP14}
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_VP8X_KEPT = 0x12  # flags: transparency, animation; not ICC, EXIF and XMP
_VP8X_EXIF = 0x08
_WEBP_KEPT = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM"}
_WEBP_FRAME_KEPT = {b"VP8 ", b"VP8L", b"ALPH"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_TIFF = re.compile(rb"II\*\x00|MM\x00\*")
_ORIENTATION = 0x0112
# One directory with one entry: the orientation, one number of 16 bits, which stands between the two.
_TIFF_BEFORE = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"
_TIFF_AFTER = bytes(6)


class TooManyPieces(Exception):
    """A file is cut into so many pieces that only a decoder's time can be meant."""


@dataclass(frozen=True, slots=True)
class Bare:
    """A file reduced to its picture. ``orientation`` is EXIF's, 1 (upright) where it has none. ``plain`` is True where
    every decoder takes ``data`` for the same RGB picture, so that it may be sent on as it is. ``scans`` counts the
    passes over a JPEG's picture."""

    data: bytes
    orientation: int = 1
    plain: bool = False
    scans: int = 1


def bare(data: bytes) -> Bare:
    """The picture in a JPEG, PNG, GIF or WebP and nothing else; other types as they are.

    Raises:
        TooManyPieces
    """
    if data.startswith(b"\xff\xd8"):
        return _bare_jpeg(data)
    if data.startswith(_PNG):
        return _bare_png(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return Bare(_bare_gif(data))
    if is_webp(data):
        return _bare_webp(data)
    return Bare(data)


def with_orientation(found: Bare) -> bytes:
    """The file, and where its picture is not stored upright, an EXIF that says how it is and nothing else."""
    data, tiff = found.data, _TIFF_BEFORE + bytes((found.orientation,)) + _TIFF_AFTER
    if found.orientation == 1:
        return data
    if data.startswith(b"\xff\xd8"):
        content = b"Exif\0\0" + tiff
        return data[:2] + b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content + data[2:]
    if data.startswith(_PNG + b"\0\0\0\rIHDR"):
        chunk = b"eXIf" + tiff
        return data[:33] + len(tiff).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + data[33:]
    if data[12:16] == b"VP8X" and len(data) > 20:
        flags = bytes((data[20] | _VP8X_EXIF,))
        return _webp(
            [data[12:20], flags, data[21:], bytes(len(data) % 2), b"EXIF", len(tiff).to_bytes(4, "little"), tiff]
        )
    return data


def _bare_jpeg(data: bytes) -> Bare:
    kept = [b"\xff\xd8"]
    at, pieces, scans, orientation = 2, 0, 0, 0
    ended, known = False, True
    while found := _MARKER.search(data, at):  # what lies between segments is skipped, as decoders do
        pieces = _counted(pieces, MAX_PIECES)
        marker, at = found[1][0], found.end()
        if marker == _EOI:
            kept.append(b"\xff\xd9")
            ended = True
            break
        if marker in _ALONE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2:
            break
        content = data[at + 2 : at + length]
        at += length
        if marker == _APP1 and content.startswith(b"Exif\0") and not orientation:
            orientation = exif_orientation(content[6:])
        if (segment := _kept_segment(marker, content)) is None:
            continue
        kept.append(segment)
        known = known and marker in _COMMON
        if marker == _SOS:
            scans += 1
            end = _NEXT_MARKER.search(data, at)
            kept.append(data[at : end.start()] if end else data[at:])
            if end is None:
                break
            at = end.start()
    return Bare(b"".join(kept), orientation or 1, ended and known, scans)


def _kept_segment(marker: int, content: bytes) -> bytes | None:
    """The segment as it is kept, None where it holds no picture."""
    if marker == _APP0 and content.startswith(b"JFIF\0") and len(content) >= 14:
        content = content[:12] + b"\0\0"  # without its thumbnail
    elif marker == _APP14 and content.startswith(b"Adobe") and len(content) >= 12:
        content = content[:12]  # names the colour transform
    elif _APP0 <= marker <= _APP15 or marker == _COM:
        return None
    return b"\xff" + bytes((marker,)) + (len(content) + 2).to_bytes(2, "big") + content


def _bare_png(data: bytes) -> Bare:
    """Layout: PNG specification, third edition, chapters 5 and 11."""
    kept = [_PNG]
    at, pieces, orientation = len(_PNG), 0, 0
    plain = False
    while at + 12 <= len(data):
        pieces = _counted(pieces, MAX_PIECES)
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind == b"eXIf" and not orientation:
            orientation = exif_orientation(data[at + 8 : end - 4])
        if kind == b"IHDR":
            plain = data[at + 16 : at + 18] == b"\x08\x02"  # 8 bits a channel, RGB
        if kind == b"tRNS":
            plain = False
        if kind in _PNG_KEPT:
            kept.append(data[at:end])
        at = end
        if kind == b"IEND":
            return Bare(b"".join(kept), orientation or 1, plain and end <= len(data))
    return Bare(b"".join(kept), orientation or 1)


def _bare_gif(data: bytes) -> bytes:
    """The first frame. Layout: GIF89a specification, sections 17 to 27."""
    at = 13 + _colours(data[10:11])
    kept = [data[:at]]
    control = b""
    pieces = blocks = 0
    while at < len(data):
        pieces = _counted(pieces, MAX_PIECES)
        start, kind = at, data[at]
        if kind not in (0x21, 0x2C):
            break
        at += 2 if kind == 0x21 else 11 + _colours(data[at + 9 : at + 10])
        while size := (data[at] if at < len(data) else 0):
            blocks = _counted(blocks, MAX_SUBBLOCKS)
            at += 1 + size
        at += 1
        if kind == 0x2C:
            return b"".join([*kept, control, data[start:at], b";" if at <= len(data) else b""])
        if data[start + 1 : start + 2] == b"\xf9":  # how the frame is drawn, its transparent colour among it
            control = data[start:at]
    return b"".join(kept)


def is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _bare_webp(data: bytes) -> Bare:
    """All frames. Layout: RFC 9649, section 2."""
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    chunks = _riff_chunks(data, 12, end)
    if data[12:16] != b"VP8X":
        return Bare(_webp([chunk for _, chunk in chunks[:1]]))
    kept, orientation = [], 0
    for kind, chunk in chunks:
        if kind == b"EXIF" and not orientation:
            orientation = exif_orientation(chunk[8:].removeprefix(b"Exif\0\0"))
        if kind == b"VP8X" and len(chunk) > 8:
            kept.append(chunk[:8] + bytes((chunk[8] & _VP8X_KEPT,)) + chunk[9:])
        elif kind == b"ANMF":
            kept.append(_bare_frame(chunk))
        elif kind in _WEBP_KEPT:
            kept.append(chunk)
    return Bare(_webp(kept), orientation or 1)


def _bare_frame(chunk: bytes) -> bytes:
    """16 bytes say where a frame is and how long it stays; chunks follow."""
    end = min(len(chunk), 8 + int.from_bytes(chunk[4:8], "little"))
    kept = [inner for kind, inner in _riff_chunks(chunk, 24, end) if kind in _WEBP_FRAME_KEPT]
    content = chunk[8 : min(24, end)] + b"".join(kept)
    return chunk[:4] + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


def _riff_chunks(data: bytes, at: int, end: int) -> list[tuple[bytes, bytes]]:
    """Names and whole chunks, header and padding included, from ``at`` on."""
    chunks: list[tuple[bytes, bytes]] = []
    while at + 8 <= end:
        _counted(len(chunks), MAX_PIECES)
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        after = min(end, at + 8 + size + size % 2)
        chunks.append((data[at : at + 4], data[at:after]))
        at = after
    return chunks


def _webp(pieces: list[bytes]) -> bytes:
    content = b"WEBP" + b"".join(pieces)
    return b"RIFF" + len(content).to_bytes(4, "little") + content


def _colours(flags: bytes) -> int:
    """Bytes of a colour table, 0 where there is none."""
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _counted(count: int, limit: int) -> int:
    if count >= limit:
        raise TooManyPieces
    return count + 1


def exif_orientation(tiff: bytes) -> int:
    """The orientation in EXIF (from its TIFF header on), 1 where there is none or it is damaged."""
    return _orientation_at(tiff, 0) or 1


def _orientation_at(data: bytes, start: int) -> int | None:
    """None where there is none; 0 where there is one of another form than a single number.

    Layout: TIFF 6.0, section 2.
    """
    order = "<" if data[start : start + 2] == b"II" else ">"
    try:
        first = start + struct.unpack_from(f"{order}L", data, start + 4)[0]
        (entries,) = struct.unpack_from(f"{order}H", data, first)
        for at in range(first + 2, first + 2 + 12 * entries, 12):
            tag, kind, count, value = struct.unpack_from(f"{order}HHLH", data, at)
            if tag == _ORIENTATION:
                return int(value) if (kind, count) == (3, 1) and 1 <= value <= 8 else 0
    except struct.error:
        pass
    return None


def odd_orientation_inside(data: bytes) -> bool:
    """True where EXIF anywhere in a file has an orientation that is no single number. For AVIF, whose decoder reads it
    itself, and would first turn millions of fractions into numbers."""
    return any(_orientation_at(data, found.start()) == 0 for found in _TIFF.finditer(data))


def webp_canvas(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels that a WebP file claims, or None where it is no WebP or too short to say.

    Pillow's reader allocates the whole canvas when it opens a file, so its size has to be known earlier.
    Layout: RFC 9649, sections 2.5 to 2.7.
    """
    if len(data) < 30 or not is_webp(data):
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


ENOUGH_TO_TELL = 12
"""Bytes of a beginning by which ``begins_like_an_image`` decides."""


def begins_like_an_image(data: bytes) -> bool:
    """True where the first bytes are those of a type that is taken, or of HEIC, which is refused by its name later."""
    return data.startswith((b"\xff\xd8\xff", _PNG, b"GIF8")) or is_webp(data) or is_avif(data)


def is_avif(data: bytes) -> bool:
    """True for the container that AVIF shares with HEIC."""
    return data[4:8] == b"ftyp"


def is_heif(data: bytes) -> bool:
    """True for HEIC and its kin, the pictures phones make that need another decoder than ours."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS
