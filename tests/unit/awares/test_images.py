import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from awares.errors import DataError
from awares.images import DecodeLimits, decode, low_view, render
from awares.view import View


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.linear_gradient("L").resize(size).convert("RGB")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_files_decode_to_their_pixels(kind):
    assert np.array_equal(np.asarray(decode(encoded(gradient(), kind))), np.asarray(gradient()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_other_allowed_formats_decode(kind):
    image = decode(encoded(gradient(), kind))
    assert image.mode == "RGB" and image.size == (40, 30)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    source = Image.new(mode, (4, 4)) if mode == "I;16" else gradient((4, 4)).convert(mode)
    assert decode(encoded(source, kind)).mode == "RGB"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_large_transparent_image_is_composed_as_a_whole_one(mode):
    noise = Image.effect_noise((700, 613), 90)
    if mode == "P":
        image = noise.convert("RGB").quantize(200)
        image.info["transparency"] = bytes(range(200))
    else:
        image = noise.convert(mode[:-1])
        image.putalpha(noise.rotate(180))
    image = Image.open(io.BytesIO(encoded(image)))
    over = image.convert("RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    assert decode(encoded(image)).tobytes() == whole.tobytes()


def test_transparency_lies_on_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert [decode(encoded(image)).getpixel((x, 0)) for x in (0, 1)] == [
        (255, 0, 0),
        (255, 255, 255),
    ]


def test_sixteen_bit_grey_keeps_its_tones():
    image = Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16))
    assert [decode(encoded(image)).getpixel((x, 0)) for x in range(3)] == [
        (0, 0, 0),
        (128, 128, 128),
        (255, 255, 255),
    ]


TONES = {
    "whole numbers": (np.int32, [0, 128, 255], [0, 128, 255]),
    "16 bits": (np.int32, [0, 32_768, 65_535], [0, 128, 255]),
    "32 bits": (np.int32, [0, 2**30, 2**31 - 1], [0, 128, 255]),
    "fractions": (np.float32, [0.0, 0.5, 1.0], [0, 128, 255]),
    "floats": (np.float32, [0.0, 128.0, 255.0], [0, 128, 255]),
    "negative": (np.float32, [-1.0, 0.0, 0.0], [0, 255, 255]),
    "not finite": (np.float32, [np.nan, np.inf, 1.0], [0, 0, 255]),
    "black": (np.float32, [0.0, 0.0, 0.0], [0, 0, 0]),
}


@pytest.mark.parametrize("name", TONES)
def test_32_bit_grey_keeps_its_tones(name):
    """Check TIFF files of 32-bit grey: Pillow's own conversion turns them black or white."""
    kind, tones, want = TONES[name]
    image = decode(encoded(Image.fromarray(np.array([tones], dtype=kind)), "TIFF"))
    assert [image.getpixel((x, 0)) for x in range(3)] == [(tone,) * 3 for tone in want]


@pytest.mark.parametrize("metadata", ["profile", "text"])
def test_a_large_profile_or_text_costs_no_image(metadata):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("note", "x" * 3_000_000, zip=True)
    options = {"icc_profile": bytes(3_000_000)} if metadata == "profile" else {"pnginfo": texts}
    data = encoded(gradient(), **options)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(gradient()))
    for end in range(0, len(data), 97):
        try:
            decode(data[:end])
        except DataError:
            pass


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (3, 2))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    # Orientation 6 means that a viewer must rotate the image by 90 degrees clockwise.
    exif[0x0112] = 6
    turned = decode(encoded(image, exif=exif))
    assert turned.size == (2, 3) and turned.getpixel((1, 0)) == (255, 255, 255)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue", "lime")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(gif).getpixel((0, 0)) == (255, 0, 0)
    png = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert decode(png).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_truncated_files_name_their_source(kind):
    data = encoded(gradient((200, 200)), kind)
    for keep in (0, 1, 20, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(DataError, match="row 17: "):
            decode(data[:keep], source="row 17")


def png_header(width: int, height: int) -> bytes:
    """Return a PNG whose header states the given size, but which has only 100 bytes of pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(100_000, 100_000), (10_001, 8_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_before_they_are_decoded(size):
    with pytest.raises(DataError, match="bomb.png: .*pixels"):
        decode(png_header(*size), source="bomb.png")


def test_limits_are_the_callers():
    with pytest.raises(DataError, match="40 x 30 is 1200 pixels, more than 1000"):
        decode(encoded(gradient()), DecodeLimits(max_pixels=1000))
    with pytest.raises(DataError, match="allowed formats are PNG"):
        decode(encoded(gradient(), "JPEG"), DecodeLimits(formats=("PNG",)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ],
)
def test_other_files_are_refused(data):
    with pytest.raises(DataError, match="not a readable image"):
        decode(data)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
)
@pytest.mark.filterwarnings("ignore")
def test_corrupt_bytes_decode_or_raise_data_error(kind, edits):
    data = bytearray(encoded(gradient((16, 16)), kind))
    for place, value in edits:
        data[int(place * (len(data) - 1))] = value
    try:
        assert decode(bytes(data)).mode == "RGB"
    except DataError as error:
        assert str(error).startswith("image: ")


def test_the_low_view_halves_and_smooths():
    checker = Image.fromarray((np.indices((8, 10)).sum(0) % 2 * 255).astype(np.uint8)).convert(
        "RGB"
    )
    low = low_view(checker)
    assert low.size == (5, 4)
    # Each pixel of the low view is the average of several pixels of the image.
    assert abs(np.asarray(low).astype(int) - 127).max() < 40
    assert low_view(Image.new("RGB", (1, 1))).size == (1, 1)


def test_a_crop_is_the_original_pixels():
    image = gradient()
    assert np.array_equal(
        np.asarray(render(image, View((10, 5, 30, 20)))), np.asarray(image)[5:20, 10:30]
    )
    assert render(image, View((0, 0, 40, 30))) is image
    assert render(image, View((35, -4, 90, 10))).size == (5, 10)
    assert render(image, View(None), 0.25).size == (10, 7)


def test_a_strip_is_padded_with_black():
    strip = render(Image.new("RGB", (1000, 2), "white"), View((0, 0, 1000, 1)))
    assert strip.size == (1000, 5)
    assert strip.getpixel((999, 0)) == (255, 255, 255) and strip.getpixel((0, 1)) == (0, 0, 0)
