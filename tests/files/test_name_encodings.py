"""Names in archives that do not declare their encoding: the keys tell it."""

import struct
import zlib

import pytest
import suite_export
from suite_export import box, build, labelled, write_raw_zip

from superbai.export import Export
from superbai.upload.image_files import ImageFiles
from yolov3_tf2.files import archives
from yolov3_tf2.files.name_encodings import (
    decode_known_names,
    decode_names,
    known_parts,
)

NAMES = {
    "utf-8": "고양이 写真",
    "cp949": "고양이",
    "cp932": "表の写真",  # Its first character ends with the byte of a backslash.
    "cp936": "图片文件夹",
    "cp950": "圖片資料夾",
    "cp1252": "Straßenbäume Øresund",
    "cp437": "Straßenbäume",
    "cp850": "Øresund Ärger",
    "cp1250": "Łódź źle",
    "cp852": "Łódź źle",
    "cp1251": "фотографии",
    "cp866": "фотографии",
}


@pytest.mark.parametrize(("encoding", "name"), NAMES.items())
def test_the_encoding_of_the_known_names_is_found(encoding, name):
    others = [f"{name} {number}/b.jpg" for number in range(3)]
    paths = [f"{name}/a {name}.jpg.jpg", *others]
    raw = [path.encode(encoding) for path in paths]
    # With one more extension in the archive, and only one name of all known.
    assert decode_known_names(raw, known_parts([f"x/a {name}.jpg"])) == paths
    assert decode_known_names(raw, known_parts([f"{name}/c.jpg"])) == paths
    assert decode_known_names(raw, known_parts(["c.jpg"])) == decode_names(raw)
    assert decode_known_names(raw, set()) == decode_names(raw)


def test_all_names_have_one_encoding_where_one_fits_all():
    # In UTF-8, the first one alone is the letter ġ.
    names = ["치.jpg", "고양이.jpg"]
    raw = [name.encode("cp949") for name in names]
    assert decode_names(raw) == names
    assert decode_names(raw[:1]) == ["ġ.jpg"]
    assert decode_known_names(raw[:1], known_parts(["ds/치.jpg"])) == names[:1]
    # From several programs: each as it is.
    raw = ["고양이.jpg".encode(), "고양이 2.jpg".encode("cp949"), b"\xff\xff.jpg"]
    assert decode_names(raw) == ["고양이.jpg", "고양이 2.jpg", "\xa0\xa0.jpg"]


@pytest.mark.parametrize(("encoding", "name"), NAMES.items())
def test_an_export_whose_images_a_windows_has_zipped(tmp_path, encoding, name):
    items = [labelled("a.jpg", box(1, 2, 3, 4), dataset=f"{name} {n}") for n in "12"]
    items.append(labelled(f"{name}.jpg", box(1, 2, 3, 9), dataset="plain"))
    images, labels = build(items)
    zipped = suite_export.write_zip(tmp_path / "labels.zip", labels)
    raw = {entry.encode(encoding): content for entry, content in images.items()}
    path = write_raw_zip(tmp_path / "images.zip", raw)
    expected = {f"{name} 1/a.jpg", f"{name} 2/a.jpg", f"plain/{name}.jpg"}
    with Export([path], zipped) as export:
        assert {item.source_id for item in export.items} == expected
        assert all(map(export.read, export.items))
        assert not export.notes.assumed
    # An upload finds them too.
    identities = [tuple(each.split("/")) for each in expected]
    with ImageFiles([path], identities) as files:
        sizes = list(map(files.find_size, identities))
    assert sizes == [(suite_export.WIDTH, suite_export.HEIGHT)] * 3


def unicode_path(raw, name, version=1, checksum=None):
    checksum = zlib.crc32(raw) if checksum is None else checksum
    field = struct.pack("<BI", version, checksum) + name
    return struct.pack("<HH4sHH", 0x9999, 4, b"upup", 0x7075, len(field)) + field


@pytest.mark.parametrize("raw", [b"____.jpg", "写真集.jpg".encode("cp932")])
def test_the_unicode_path_of_info_zip_goes_first(tmp_path, raw):
    name = "ds/사진.jpg"
    field = unicode_path(raw, name.encode())
    path = write_raw_zip(tmp_path / "a.zip", {raw: b"bytes"}, field)
    with archives.open_archive(path) as archive:
        assert archive.files == [name] and not archive.has_undeclared_names
        assert archive.read(name) == b"bytes"
    # Of an entry that another program has renamed, or of an unknown version.
    for field in (
        unicode_path(raw, name.encode(), checksum=1),
        unicode_path(raw, name.encode(), version=2),
        unicode_path(raw, b""),
    ):
        path = write_raw_zip(tmp_path / "b.zip", {raw: b"bytes"}, field)
        with archives.open_archive(path) as archive:
            assert archive.files == decode_names([raw])
            assert archive.has_undeclared_names is not raw.isascii()
            assert archive.read(archive.files[0]) == b"bytes"


def test_a_path_of_unicode_that_leaves_the_archive_is_refused(tmp_path):
    field = unicode_path(b"evil.jpg", b"../evil.jpg")
    path = write_raw_zip(tmp_path / "a.zip", {b"evil.jpg": b""}, field)
    with pytest.raises(ValueError, match=r"'\.\./evil\.jpg' leaves the archive"):
        archives.open_archive(path)
