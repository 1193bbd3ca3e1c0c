"""Every picture people send comes out upright, small and bare; everything else is refused in plain words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, _avif

from serving.image_headers import bare, webp_canvas
from serving.images import MAX_ASPECT, MIN_SIDE, fit, prepare_image
from tests.serving.pictures import BLUE, RED, decoded, encoded, near, picture, png_bomb, webp_claiming
from trendrag.errors import ImageTooLarge, InvalidImage, RequestError
from trendrag.settings import ImageSettings
from trendrag.types import PreparedImage

SETTINGS = ImageSettings()
BARE = encoded(picture())


def checked(image: PreparedImage, settings: ImageSettings = SETTINGS) -> Image.Image:
    """The decoded picture, after the promises that hold for every one."""
    shown = decoded(image.data)
    kinds = {"image/jpeg": "JPEG", "image/png": "PNG"}
    assert (shown.format, shown.mode, shown.size) == (kinds[image.mime_type], "RGB", (image.width, image.height))
    assert image.width * image.height <= settings.model_pixels
    assert min(image.width, image.height) >= MIN_SIDE
    assert bare(image.data).data == image.data, "nothing but the picture"
    assert bare(image.data).plain
    return shown


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello, this is no picture at all", "not an image of a known type"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image of a known type"),
        (b"%PDF-1.7\n" + bytes(100), "not an image of a known type"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known type"),
        (encoded(picture(), "TIFF"), "not an image of a known type"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
        (BARE[: len(BARE) // 2], "damaged or cut short"),
        (encoded(picture(), "PNG")[:-40], "damaged or cut short"),
        (encoded(picture(), "GIF")[:60], "damaged or cut short"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(InvalidImage, match=words) as refusal:
        prepare_image(data, SETTINGS)
    assert "JPEG" in str(refusal.value), "the message says what is taken"


def test_too_many_bytes() -> None:
    with pytest.raises(ImageTooLarge, match=r"2\.0 MiB; at most 1\.0 MiB"):
        prepare_image(bytes(2 * 2**20), ImageSettings(max_bytes=2**20))


@pytest.mark.parametrize("bomb", [png_bomb(), webp_claiming(16_384, 16_384)], ids=["png", "webp"])
def test_bombs_are_refused_before_anything_is_decoded(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    with pytest.raises(ImageTooLarge, match="at most 64 million"):
        prepare_image(bomb, SETTINGS)


def test_a_webp_is_measured_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening is too late: Pillow's WebP reader then already holds the canvas."""
    monkeypatch.delattr(Image, "open")
    with pytest.raises(ImageTooLarge, match="10000 × 10000 pixels"):
        prepare_image(webp_claiming(10_000, 10_000), SETTINGS)


def test_pixels_over_the_limit_but_under_pillows_own() -> None:
    with pytest.raises(ImageTooLarge, match="64 × 48 pixels"):
        prepare_image(BARE, ImageSettings(max_pixels=1000))


def test_a_jpeg_with_thousands_of_scans_is_refused() -> None:
    data = encoded(picture(), progressive=True)
    scan = data.rindex(b"\xff\xda")
    with pytest.raises(InvalidImage, match="scans"):
        prepare_image(data[:-2] + data[scan:-2] * 200 + data[-2:], SETTINGS)


def test_a_bare_jpeg_that_fits_passes_unchanged() -> None:
    assert prepare_image(BARE, SETTINGS).data == BARE
    progressive = encoded(picture(640, 480), progressive=True, quality=95)
    assert prepare_image(progressive, SETTINGS).data == progressive


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_bare_jpeg_that_lost_its_end_does_not_pass(cut: int) -> None:
    data = encoded(picture(200, 200), quality=95)
    assert prepare_image(data, SETTINGS).data == data
    with pytest.raises(InvalidImage):
        prepare_image(data[:-cut], SETTINGS)


def with_exif(orientation: int | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (48.0, 8.0, 14.0)
    if orientation is not None:
        exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_metadata_is_never_sent_on(kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options: dict[str, object] = {"exif": with_exif(), "icc_profile": profile}
    if kind == "JPEG":
        options["comment"] = b"taken at home"
    data = encoded(picture(), kind, **options)
    result = prepare_image(data, SETTINGS)
    shown = checked(result)
    assert b"SecretCamera" not in result.data
    assert b"taken at home" not in result.data
    assert not dict(shown.getexif())
    assert "icc_profile" not in shown.info


def test_bytes_after_the_end_are_not_sent_on() -> None:
    result = prepare_image(BARE + b"a film, or somebody's address", SETTINGS)
    assert b"address" not in result.data
    checked(result)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture(160, 96)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    result = prepare_image(encoded(stored, exif=with_exif(orientation)), SETTINGS)
    shown = checked(result)
    assert shown.size == (160, 96)
    assert near(shown.getpixel((20, 20)), RED)
    assert near(shown.getpixel((140, 20)), BLUE)
    assert near(shown.getpixel((20, 80)), BLUE)


def test_damaged_exif_does_not_spoil_a_good_picture() -> None:
    checked(prepare_image(encoded(picture(), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), SETTINGS))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientations_count_as_upright(orientation: int) -> None:
    shown = checked(prepare_image(encoded(picture(), exif=with_exif(orientation)), SETTINGS))
    assert near(shown.getpixel((5, 5)), RED)


def test_cmyk() -> None:
    shown = checked(prepare_image(encoded(picture().convert("CMYK")), SETTINGS))
    assert near(shown.getpixel((10, 10)), RED)


@pytest.mark.parametrize("size", [(64, 48), (3000, 2000)])
def test_sixteen_bit_grey_keeps_its_tones(size: tuple[int, int]) -> None:
    shown = checked(prepare_image(encoded(Image.new("I;16", size, 32_896), "PNG"), SETTINGS))
    assert near(shown.getpixel((10, 10)), (128, 128, 128), 3)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_and_bilevel(mode: str) -> None:
    shown = checked(prepare_image(encoded(Image.new(mode, (50, 50), 255), "PNG"), SETTINGS))
    assert near(shown.getpixel((10, 10)), (255, 255, 255), 3)


@pytest.mark.parametrize("size", [(64, 48), (2400, 1600)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(mode: str, size: tuple[int, int]) -> None:
    """Half transparent, over pixels that are black underneath: black must not shine through."""
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    image.paste((90, 90, 90, 255), (0, 0, size[0] // 2, size[1]))
    shown = checked(prepare_image(encoded(image.convert(mode), "PNG"), SETTINGS))
    assert near(shown.getpixel((5, 20)), (90, 90, 90), 8)
    assert near(shown.getpixel((shown.width - 5, 20)), (255, 255, 255), 8)


def test_transparent_colour_of_an_rgb_png() -> None:
    shown = checked(prepare_image(encoded(picture(), "PNG", transparency=RED), SETTINGS))
    assert near(shown.getpixel((5, 5)), (255, 255, 255), 8)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in (RED, BLUE, BLUE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert near(checked(prepare_image(data, SETTINGS)).getpixel((30, 20)), RED)


def test_avif_is_decoded_by_the_pools_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself Pillow's decoder would start as many threads as there are cores."""
    asked: list[object] = []
    real = _avif.AvifDecoder

    def decoder(data: bytes, codec: str, threads: int) -> object:
        asked.append(threads)
        return real(data, codec, threads)

    monkeypatch.setattr(_avif, "AvifDecoder", decoder)
    checked(prepare_image(encoded(picture(), "AVIF"), SETTINGS))
    assert asked[0] == 1


def test_avif() -> None:
    assert near(checked(prepare_image(encoded(picture(), "AVIF"), SETTINGS)).getpixel((5, 5)), RED)


def test_one_pixel_is_made_large_enough() -> None:
    result = prepare_image(encoded(Image.new("RGB", (1, 1), RED), "GIF"), SETTINGS)
    assert (result.width, result.height) == (MIN_SIDE, MIN_SIDE)
    assert near(checked(result).getpixel((14, 14)), RED)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (65_000, 2)])
def test_strips_get_margins_and_not_another_shape(size: tuple[int, int]) -> None:
    result = prepare_image(encoded(Image.new("RGB", size, "black"), "PNG"), SETTINGS)
    shown = checked(result)
    assert max(shown.size) <= (MAX_ASPECT + 1) * min(shown.size)
    assert near(shown.getpixel((0, 0)), (255, 255, 255)), "the margin"
    darkest, brightest = shown.convert("L").getextrema()
    assert darkest == pytest.approx(0, abs=40), "the strip"
    assert brightest == 255


def test_large_pictures_are_scaled_to_the_budget_and_keep_their_shape() -> None:
    result = prepare_image(encoded(picture(4000, 3000)), SETTINGS)
    assert near(checked(result).getpixel((10, 10)), RED)
    assert result.width / result.height == pytest.approx(4 / 3, rel=0.01)
    assert result.width * result.height > 0.95 * SETTINGS.model_pixels


@given(st.integers(1, 70_000), st.integers(1, 70_000), st.integers(MIN_SIDE**2, 4_000_000))
def test_fit_stays_within_every_limit(width: int, height: int, max_pixels: int) -> None:
    size, canvas = fit(width, height, max_pixels)
    assert min(canvas) >= MIN_SIDE
    assert canvas[0] * canvas[1] <= max_pixels
    assert max(canvas) <= (MAX_ASPECT + 1) * min(canvas)
    assert 1 <= size[0] <= canvas[0]
    assert 1 <= size[1] <= canvas[1]
    if max(width, height) <= min(MAX_ASPECT, max_pixels / MIN_SIDE**2) * min(width, height):
        assert size == canvas, "no margins unless they are needed"
        if min(width, height) >= MIN_SIDE and width * height <= max_pixels:
            assert size == (width, height), "what fits is left alone"


SMALL = ImageSettings(max_pixels=2_000_000, model_pixels=200_000)


@given(st.binary(max_size=400), st.sampled_from([b"", BARE[:20], b"GIF89a", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"]))
def test_random_bytes_never_raise_anything_else(data: bytes, start: bytes) -> None:
    try:
        checked(prepare_image(start + data, SMALL), SMALL)
    except RequestError as refusal:
        assert isinstance(refusal, InvalidImage | ImageTooLarge)


GOOD = [
    encoded(picture(), quality=70, exif=with_exif(6)),
    encoded(picture(), progressive=True),
    encoded(picture(), "PNG"),
    encoded(picture(), "WEBP"),
    encoded(picture().convert("P"), "GIF"),
    encoded(picture(), "AVIF"),
]


@given(st.sampled_from(GOOD), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12))
def test_mutated_pictures_never_raise_anything_else(data: bytes, changes: list[tuple[float, int]]) -> None:
    mutated = bytearray(data)
    for place, value in changes:
        mutated[int(place * len(mutated))] = value
    try:
        checked(prepare_image(bytes(mutated), SMALL), SMALL)
    except RequestError as refusal:
        assert isinstance(refusal, InvalidImage | ImageTooLarge)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("extended", [True, False])
@given(st.integers(1, 90), st.integers(1, 90))
def test_webp_canvas_agrees_with_the_decoder(lossless: bool, extended: bool, width: int, height: int) -> None:
    options: dict[str, object] = {"exif": with_exif()} if extended else {}
    data = encoded(picture(width, height), "WEBP", lossless=lossless, **options)
    assert webp_canvas(data) == (width, height)
