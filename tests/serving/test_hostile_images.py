"""Files made to keep a decoder busy, to fill memory, or to carry something past it."""

import io
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile, PngImagePlugin, TiffImagePlugin

from serving.image_headers import MAX_PIECES, Bare, TooManyPieces, bare, exif_orientation, with_orientation
from serving.images import prepare_image, without_metadata
from tests.serving.pictures import BLUE, RED, decoded, encoded, near, picture
from tests.serving.test_images import GOOD, SETTINGS, checked, with_exif
from trendrag.errors import ImageTooLarge, InvalidImage
from trendrag.settings import ImageSettings

SECRET = b"taken at home, 48.137 N"
JPEG, PNG, GIF = encoded(picture()), encoded(picture(), "PNG"), encoded(picture().convert("P"), "GIF")
WEBP = encoded(picture(), "WEBP", exif=b"II*\0", save_all=True, append_images=[picture().rotate(180)])
GIF_BLOCKS = 13 + 3 * 2 ** ((GIF[10] & 7) + 1)


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks: bytes) -> bytes:
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    made = [bytes((0xFF, kind)) + (len(content) + 2).to_bytes(2, "big") + content for kind, content in segments]
    return JPEG[:2] + b"".join(made) + JPEG[2:]


def webp_with(*chunks: bytes) -> bytes:
    content = WEBP[8:] + b"".join(chunks)
    return b"RIFF" + struct.pack("<L", len(content)) + content


def riff_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<L", len(content)) + content + bytes(len(content) % 2)


def gif_with(block: bytes) -> bytes:
    return GIF[:GIF_BLOCKS] + block + GIF[GIF_BLOCKS:]


def tiff(tag: int, kind: int, count: int, order: str = ">") -> bytes:
    """EXIF with one entry whose values lie behind it."""
    head = b"MM\0*" if order == ">" else b"II*\0"
    entry = struct.pack(f"{order}HHLL", tag, kind, count, 26)
    return head + struct.pack(f"{order}LH", 8, 1) + entry + bytes(4) + struct.pack(f"{order}LL", 1, 1) * count


def test_the_files_are_taken_apart_where_they_were_meant_to_be() -> None:
    assert GIF[10] & 0x80, "a colour table"
    assert GIF[GIF_BLOCKS : GIF_BLOCKS + 1] in (b"!", b",")
    assert PNG[37:41] == b"IDAT"


@pytest.mark.parametrize(
    "data",
    [
        jpeg_with((0xFE, SECRET), (0xE1, b"Exif\0\0" + SECRET), (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SECRET)),
        jpeg_with((0xE2, b"ICC_PROFILE\0\1\1" + SECRET * 2000), (0xED, SECRET), (0xE0, b"JFXX\0" + SECRET)),
        jpeg_with((0xE0, b"JFIF\0\1\1\0\0\1\0\1\7\1" + SECRET)),
        JPEG + SECRET,
        JPEG + JPEG + SECRET,
        PNG + SECRET,
        png_with(*(chunk(kind, b"a\0" + SECRET) for kind in (b"tEXt", b"iTXt", b"eXIf", b"prVt"))),
        png_with(chunk(b"iCCP", b"x\0\0" + zlib.compress(SECRET)), chunk(b"tIME", SECRET[:7])),
        gif_with(b"!\xfe\x17" + SECRET + b"\0"),
        gif_with(b"!\xff\x0bXMP DataXMP\x17" + SECRET + b"\0"),
        GIF + SECRET,
        b"GIF89a" + GIF[6:-1] + b"!\xfe\x17" + SECRET + b"\0;",
        webp_with(*(riff_chunk(kind, SECRET) for kind in (b"EXIF", b"XMP ", b"ICCP", b"prVt"))),
        encoded(picture(), "WEBP", exif=SECRET, xmp=SECRET, icc_profile=SECRET, lossless=True),
        WEBP + SECRET,
    ],
    ids=["jpeg comments", "jpeg profile", "jpeg thumbnail", "after jpeg", "two jpegs", "after png", "png text",
         "png profile", "gif comment", "gif xmp", "after gif", "gif end", "webp chunks",
         "webp metadata", "after webp"],
)  # fmt: skip
def test_what_is_hidden_in_a_file_ends_here(data: bytes) -> None:
    assert SECRET[:7] in data or b"ICCP" in data or b"iCCP" in data
    assert SECRET not in bare(data).data
    assert SECRET not in without_metadata(data, SETTINGS)[1]
    result = prepare_image(data, SETTINGS)
    assert SECRET not in result.data
    assert near(checked(result).getpixel((5, 5)), RED)


def test_metadata_alone_is_no_reason_to_encode_anew() -> None:
    plain = encoded(picture(200, 200), quality=77)
    marked = encoded(picture(200, 200), quality=77, exif=with_exif(), comment=b"taken at home", icc_profile=b"x" * 500)
    assert prepare_image(marked, SETTINGS).data == plain
    tagged = PngImagePlugin.PngInfo()
    tagged.add_text("Where", "at home")
    drawing = encoded(picture(200, 200), "PNG")
    result = prepare_image(encoded(picture(200, 200), "PNG", pnginfo=tagged, exif=with_exif()), SETTINGS)
    assert (result.data, result.mime_type) == (drawing, "image/png")


def noise(width: int, height: int) -> Image.Image:
    return Image.effect_noise((width, height), 100).convert("RGB")


@pytest.mark.parametrize(
    "data",
    [
        encoded(noise(100, 100), "PNG"),
        encoded(picture().convert("RGBA"), "PNG"),
        encoded(picture().convert("L"), "PNG"),
        encoded(picture().convert("P"), "PNG"),
        encoded(picture(), "PNG", transparency=(1, 2, 3)),
        encoded(picture(), "PNG", exif=with_exif(6)),
        encoded(picture(), "WEBP", lossless=True),
        encoded(picture().convert("L")),
        encoded(picture().convert("CMYK")),
        encoded(picture(1200, 1200), "PNG"),
    ],
    ids=["photo", "alpha", "grey", "palette", "colour key", "turned", "webp", "grey jpeg", "cmyk", "large"],
)
def test_what_not_every_model_server_shows_alike_is_encoded_anew(data: bytes) -> None:
    assert prepare_image(data, SETTINGS).mime_type == "image/jpeg"


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_png_that_lost_its_end_does_not_pass(cut: int) -> None:
    data = encoded(picture(200, 200), "PNG")
    assert prepare_image(data, SETTINGS).mime_type == "image/png"
    try:
        result = prepare_image(data[:-cut], SETTINGS)
    except InvalidImage:
        return
    assert result.mime_type == "image/jpeg", "all pixels were there, and it was encoded anew"


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_png_with_a_wrong_checksum_does_not_pass(place: float) -> None:
    data = bytearray(encoded(noise(300, 300).quantize(8).convert("RGB"), "PNG"))
    data[int(len(data) * place)] ^= 0xFF
    with pytest.raises(InvalidImage):
        prepare_image(bytes(data), SETTINGS)


@pytest.mark.parametrize(
    "data",
    [
        jpeg_with(*[(0xFE, b"")] * MAX_PIECES),
        JPEG[:2] + b"\xff\xd0" * (MAX_PIECES + 1) + JPEG[2:],
        png_with(chunk(b"abCd") * MAX_PIECES),
        PNG[:-12] + chunk(b"IDAT") * MAX_PIECES + PNG[-12:],
        gif_with(b"!\xfe\x01c\0" * MAX_PIECES),
        gif_with(b"!\xfe" + b"\x01c" * 500_000 + b"\0"),
    ],
    ids=["jpeg", "jpeg markers", "png", "png data", "gif", "gif blocks"],
)
def test_files_in_countless_pieces_never_reach_the_decoder(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Image, "open")
    with pytest.raises(InvalidImage, match="too many pieces"):
        prepare_image(data, SETTINGS)


@pytest.mark.parametrize("fill", [b"\xff", b"\x00", b"\xff\x00", b"junk"])
def test_what_lies_between_segments_is_passed_over(fill: bytes) -> None:
    data = JPEG[:2] + fill * 100_000 + JPEG[2:]
    assert prepare_image(data, SETTINGS).data == JPEG


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_is_not_parsed_by_the_decoder(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million fractions in an orientation take Pillow many seconds, with the interpreter's lock held."""
    hostile = tiff(ExifTags.Base.Orientation, 5, 100)
    data = {
        "JPEG": jpeg_with((0xE1, b"Exif\0\0" + hostile), (0xE2, b"MPF\0" + hostile)),
        "PNG": png_with(chunk(b"eXIf", hostile)),
        "WEBP": encoded(picture(), "WEBP", exif=hostile),
    }[kind]

    def parse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(TiffImagePlugin.ImageFileDirectory_v2, "load", parse)
    assert near(checked(prepare_image(data, SETTINGS)).getpixel((5, 5)), RED)


@pytest.mark.parametrize("order", [">", "<"])
def test_an_avif_whose_exif_would_be_expanded_is_refused(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = tiff(0x9999, 5, 3, order)
    data = encoded(picture(), "AVIF", exif=usual)
    assert near(checked(prepare_image(data, SETTINGS)).getpixel((5, 5)), RED)
    hostile = data.replace(usual[10:14], tiff(ExifTags.Base.Orientation, 5, 3, order)[10:14])
    assert hostile != data
    monkeypatch.delattr(Image, "open")
    with pytest.raises(InvalidImage, match="EXIF"):
        prepare_image(hostile, SETTINGS)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_an_avif_is_turned_upright(orientation: int) -> None:
    shown = checked(prepare_image(encoded(picture(100, 60), "AVIF", exif=with_exif(orientation)), SETTINGS))
    assert shown.size == ((60, 100) if orientation in (6, 8) else (100, 60))


def refuse_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)


def test_scans_and_pixels_are_weighed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eighty passes over a small picture are fine; over a large one they are seconds of work in a small file."""
    data = encoded(picture(5000, 5000), progressive=True)
    scan = data.rindex(b"\xff\xda")
    refuse_to_decode(monkeypatch)
    with pytest.raises(InvalidImage, match="scans, which is too many for its size"):
        prepare_image(data[:-2] + data[scan:-2] * 70 + data[-2:], SETTINGS)


def avif_claiming(size: int) -> bytes:
    data = encoded(picture(64, 64), "AVIF")
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", size, size) + data[at + 8 :]


@pytest.mark.parametrize(
    "data",
    [
        JPEG.replace(struct.pack(">HH", 48, 64), struct.pack(">HH", 60_000, 60_000), 1),
        GIF[:6] + struct.pack("<HH", 60_000, 60_000) + GIF[10:],
        GIF[:6] + b"\1\0\1\0" + GIF[10:].replace(b",\0\0\0\0\x40\0\x30\0", b",\0\0\0\0\xff\xff\xff\xff", 1),
        encoded(Image.new("1", (20_000, 20_000)), "PNG"),
    ],
    ids=["jpeg", "gif screen", "gif frame", "bilevel png"],
)
def test_what_claims_too_many_pixels_is_not_decoded(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_decode(monkeypatch)
    with pytest.raises(ImageTooLarge):
        prepare_image(data, SETTINGS)


def test_an_avif_that_claims_more_than_it_has() -> None:
    with pytest.raises((ImageTooLarge, InvalidImage)):
        prepare_image(avif_claiming(20_000), SETTINGS)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_a_thousand_frames_one_is_decoded(kind: str) -> None:
    frames = [Image.new("RGB", (64, 48), RED if number == 0 else BLUE) for number in range(60)]
    for number, frame in enumerate(frames):
        frame.putpixel((number, 40), (number, 255, 0))  # no two alike, so that none is left out
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert near(checked(prepare_image(data, SETTINGS)).getpixel((30, 20)), RED)
    if kind != "WEBP":
        assert getattr(Image.open(io.BytesIO(bare(data).data)), "n_frames", 1) == 1


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a page in a comment", jpeg_with((0xFE, b"<script>alert(1)</script>"))),
        ("a zip behind", PNG + b"PK\3\4" + bytes(50) + b"PK\5\6" + bytes(18)),
        ("a script that is a gif", GIF.replace(b"GIF89a", b"GIF89a", 1) + b"*/=1;alert(1);//"),
    ],
)
def test_files_that_are_two_things_at_once_come_out_as_one(name: str, data: bytes) -> None:
    result = prepare_image(data, SETTINGS)
    assert not any(mark in result.data for mark in (b"<script>", b"PK\3\4", b"alert"))


@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\xff\xff\xff\xffWEBPVP8X"])
def test_a_beginning_without_the_rest(start: bytes) -> None:
    for rest in (b"", bytes(10), bytes(1000), b"\xff" * 1000, start * 100):
        with pytest.raises((InvalidImage, ImageTooLarge)):
            prepare_image(start + rest, SETTINGS)


@given(st.sampled_from(GOOD))
def test_the_bare_file_shows_the_same(data: bytes) -> None:
    assert decoded(bare(data).data).convert("RGB").tobytes() == decoded(data).convert("RGB").tobytes()


@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "lossless WEBP", "animated WEBP"]),
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(1, 8),
    st.binary(max_size=300),
)
def test_what_is_passed_on_shows_the_very_same_without_metadata(
    kind: str, width: int, height: int, orientation: int, said: bytes
) -> None:
    exif = with_exif(orientation)
    exif[0x010E] = SECRET.decode()
    options: dict[str, object] = {"exif": exif, "xmp": SECRET + said, "comment": SECRET + said}
    if kind == "lossless WEBP":
        options["lossless"] = True
    if kind == "animated WEBP":
        options |= {"save_all": True, "append_images": [picture(width, height).rotate(180)]}
    image = picture(width, height).convert("P" if kind == "GIF" else "RGB")
    kind = kind.removeprefix("lossless ").removeprefix("animated ")
    data = encoded(image, kind, **options)
    media_type, passed = without_metadata(data, SETTINGS)
    assert media_type == f"image/{kind.lower()}"
    assert SECRET not in passed
    assert b"SecretCamera" not in passed
    before, after = decoded(data), decoded(passed)
    assert getattr(after, "n_frames", 1) == getattr(before, "n_frames", 1)
    assert after.convert("RGB").tobytes() == before.convert("RGB").tobytes()
    told = {} if orientation == 1 or kind == "GIF" else {0x0112: orientation}
    assert dict(after.getexif()) == told
    assert without_metadata(passed, SETTINGS) == (media_type, passed)


def test_an_avif_is_passed_on_anew() -> None:
    exif = with_exif()
    exif[0x010E] = SECRET.decode()
    media_type, passed = without_metadata(encoded(picture(), "AVIF", exif=exif), SETTINGS)
    assert (media_type, SECRET in passed) == ("image/jpeg", False)
    assert near(decoded(passed).getpixel((5, 5)), RED)


@given(
    st.sampled_from([JPEG, PNG, GIF, WEBP]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=8)), max_size=6),
    st.floats(0, 1),
)
def test_taking_apart_never_fails_and_is_done_once(data: bytes, changes: list[tuple[float, bytes]], cut: float) -> None:
    mutated = bytearray(data)
    for place, content in changes:
        at = int(place * len(mutated))
        mutated[at : at + len(content)] = content
    try:
        found = bare(bytes(mutated[: int(cut * len(mutated))]))
        assert bare(found.data).data == found.data
        with_orientation(Bare(found.data, orientation=6))
    except TooManyPieces:
        raise AssertionError("no small file has so many") from None


@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0", b"MM\0*", b"MM\0*\0\0\0\x08\xff\xff\x01\x12"]))
def test_any_exif_gives_an_orientation(data: bytes, start: bytes) -> None:
    assert 1 <= exif_orientation(start + data) <= 8


def test_the_same_picture_has_the_same_digest_whatever_its_metadata() -> None:
    """So that caches, the model server's among them, know it again."""
    makers: list[Callable[[], bytes]] = [
        lambda: encoded(picture()),
        lambda: encoded(picture(), comment=b"one"),
        lambda: encoded(picture(), comment=b"another"),
    ]
    assert len({prepare_image(make(), ImageSettings()).sha256 for make in makers}) == 1
