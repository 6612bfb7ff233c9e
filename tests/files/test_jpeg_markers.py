"""JPEGs that every decoder reads, by their markers; and others, damaged at random."""

import io
import random

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.images import load_rgb
from yolov3_tf2.files.jpeg_markers import is_plain_jpeg
from yolov3_tf2.files.prepared_image import prepare_image

SIZE = (96, 72)


def encode(mode="RGB", **options):
    pixels = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype="uint8")
    image = Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


PLAIN = {
    "usual": encode(),
    "all colours": encode(subsampling=0, quality=98),
    "own tables": encode(optimize=True),
    "progressive": encode(progressive=True),
    "grey": encode("L"),
    "restarts": encode(restart_marker_blocks=2),
    "progressive restarts": encode(progressive=True, restart_marker_rows=1),
    "exif, comment": encode(exif=Image.Exif().tobytes(), comment=b"\xff\xda"),
    "more at the end": encode() + b"\xff\xd8 more",
}


def decode(encoded):
    """What training decodes; None if it cannot."""
    try:
        return tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE").numpy()
    except tf.errors.InvalidArgumentError:
        return None


def insert(encoded, marker, data):
    """Inserts bytes before the first marker."""
    place = encoded.index(marker)
    return encoded[:place] + data + encoded[place:]


USUAL = PLAIN["usual"]
ODD = {
    "cmyk": encode("CMYK"),
    "cut off": USUAL[:-2],
    "png": b"\x89PNG",
    "empty": b"",
    "start only": b"\xff\xd8",
    "unknown marker": insert(USUAL, b"\xff\xda", b"\xff\x44\0\2"),
    "marker in the data": USUAL[:-40] + b"\xff\x44" + USUAL[-38:],
    "arithmetic": USUAL.replace(b"\xff\xc0", b"\xff\xc9"),
    "lossless": USUAL.replace(b"\xff\xc0", b"\xff\xc3"),
    "12 bits": USUAL.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
    "two frames": insert(
        USUAL,
        b"\xff\xc4",
        USUAL[USUAL.index(b"\xff\xc0") : USUAL.index(b"\xff\xc4")],
    ),
    "no table": USUAL.replace(b"\xff\xdb", b"\xff\xfe"),
    "no codes": USUAL.replace(b"\xff\xc4", b"\xff\xfe"),
    "second scan": USUAL[:-2] + USUAL[USUAL.index(b"\xff\xda") :],
}


@pytest.mark.parametrize("encoded", PLAIN.values(), ids=PLAIN)
def test_plain_ones_are_stored_as_they_are(encoded):
    assert is_plain_jpeg(encoded)
    assert prepare_image(encoded, "x")[:4] == (encoded, "jpeg", *SIZE)
    np.testing.assert_array_equal(decode(encoded), load_rgb(encoded, "x"))


@pytest.mark.parametrize("encoded", ODD.values(), ids=ODD)
def test_odd_ones_are_encoded_again_or_refused(encoded):
    assert not is_plain_jpeg(encoded)
    try:
        expected = np.asarray(load_rgb(encoded, "x"), "float32")
    except InputError:
        with pytest.raises(InputError, match="x: expected an image"):
            prepare_image(encoded, "x")
        return
    prepared = prepare_image(encoded, "x")
    found = decode(prepared.encoded)
    assert found.shape == (prepared.height, prepared.width, 3)
    assert np.abs(found - expected).mean() < 4


def test_the_colours_of_cmyk_are_those_of_detection():
    encoded = ODD["cmyk"]
    expected = np.asarray(load_rgb(encoded, "x"), "float32")
    assert prepare_image(encoded, "x").encoded != encoded
    found = decode(prepare_image(encoded, "x").encoded)
    assert np.abs(found - expected).mean() < 4


def damage(encoded, chance):
    """Changes, removes, inserts or repeats a few bytes."""
    data = bytearray(encoded)
    header = encoded.index(b"\xff\xda") + 14
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        end = chance.choice((header, len(data)))
        place = chance.randrange(2, min(end, len(data)))
        some = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 8)))
        start = chance.randrange(2, len(data))
        change = chance.randrange(5)
        if change == 0:
            data[place] = chance.choice((some[0], 0xFF))
        elif change == 1 and len(data) > 300:
            del data[place : place + chance.randrange(1, 20)]
        elif change == 2:
            data[place:place] = b"\xff" + some[:1]
        elif change == 3:
            data[place:place] = some
        else:
            data[place:place] = data[start : start + chance.randrange(2, 300)]
    return bytes(data)


def test_training_decodes_what_is_accepted():
    chance = random.Random(1)
    counts = {"accepted": 0, "refused": 0, "plain": 0}
    for number in range(1500):
        encoded = damage(list(PLAIN.values())[number % len(PLAIN)], chance)
        try:
            prepared = prepare_image(encoded, "x")
        except InputError:
            counts["refused"] += 1
            continue
        counts["accepted"] += 1
        counts["plain"] += is_plain_jpeg(encoded)
        assert prepared.format == "jpeg"
        found = decode(prepared.encoded)
        assert found is not None, encoded
        assert found.shape == (prepared.height, prepared.width, 3)
        load_rgb(prepared.encoded, "x")  # Nor does detection refuse it.
    assert min(counts.values()) > 300, counts
