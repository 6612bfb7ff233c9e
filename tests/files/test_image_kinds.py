"""What an image is: by the first bytes of a file, in zips and folders alike."""

import io
import zipfile

import pillow_heif
import pytest
from PIL import Image
from suite_export import encoded_image, write_zip

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.archives import open_archive
from yolov3_tf2.files.image_kinds import (
    READABLE,
    START_BYTES,
    image_kind,
    is_image_file,
    split_images,
)
from yolov3_tf2.files.images import open_image

pillow_heif.register_heif_opener()


@pytest.mark.parametrize("kind", READABLE)
def test_what_pillow_writes_is_known_by_its_first_bytes(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, kind)
    encoded = buffer.getvalue()
    assert image_kind(encoded[:START_BYTES]) == kind
    assert open_image(encoded, "a").size == (64, 48)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"GIF87a", "GIF"),
        # AVIF under the brand of all HEIF files.
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF"),
        # The list of a video has ended before these letters.
        (b"\0\0\0\x14ftypisom\0\0\0\0mp42heicheic", ""),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", ""),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"BMW is a brand of cars, as everybody knows", ""),
        (b"RIFF\0\0\0\0WAVEfmt ", ""),
        (b"PK\x03\x04", ""),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", ""),
        (b"", ""),
    ],
)
def test_kinds_by_hand(start, expected):
    assert image_kind(start) == expected


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_images_and_others(tmp_path, form):
    jpeg = encoded_image()
    files = {
        "DJI_1.MPO": jpeg,
        "noext": jpeg,
        "b.JPG": jpeg,
        "sub/c.dat": encoded_image(kind="PNG"),
        "broken.jpg": b"no image",  # It was meant to be one.
        "readme": b"text",
        "labels.json": b"{}",
        "__MACOSX/._b.JPG": b"\0\x05\x16\x07",
        "sub/._c.dat": b"\0\x05\x16\x07",
        "@eaDir/b.JPG/thumb.jpg": jpeg,
        "sub/Thumbs.db": b"\xd0\xcf",
    }
    if form == "zip":
        path = write_zip(tmp_path / "images.zip", files)
    else:
        path = tmp_path / "images"
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    with open_archive(path) as archive:
        images, others = split_images(archive)
    assert set(images) == {"DJI_1.MPO", "noext", "b.JPG", "sub/c.dat", "broken.jpg"}
    assert set(others) == {"readme", "labels.json"}
    if form == "folder":
        assert is_image_file(path / "noext") and is_image_file(path / "broken.jpg")
        assert not is_image_file(path / "readme")


def test_only_the_start_of_a_file_is_read(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("video", bytes(300 * 2**20))  # More than `read` takes.
    with open_archive(path) as archive:
        assert archive.read_start("video", 64) == bytes(64)
        assert split_images(archive) == ([], ["video"])


def test_a_damaged_file_counts_as_an_image_so_that_it_is_named(tmp_path):
    path = write_zip(tmp_path / "images.zip", {"one": encoded_image()})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"PK\x03\x04", b"PK\xff\xff", 1))
    with open_archive(path) as archive:
        assert split_images(archive) == (["one"], [])
        with pytest.raises(InputError, match="cannot read 'one'"):
            archive.read("one")


def test_the_images_of_the_cases(shared):
    with open_archive(shared / "cases" / "ext" / "images.zip") as archive:
        images, others = split_images(archive)
    assert len(images) == 5 and not others
    for folder in ("mix", "heic"):
        files = sorted((shared / "cases" / folder).iterdir())
        assert files and all(map(is_image_file, files))
        assert all(open_image(path.read_bytes(), path).width > 0 for path in files)
