"""Zip archives: opening, listing, reading, and the picture of a data key."""

import unicodedata
import zipfile
from typing import NamedTuple

import pytest
import suite_export

from yolov3_tf2 import archives
from yolov3_tf2.errors import InputError

KOREAN = "고양이/사진.jpg"
NFC, NFD = (unicodedata.normalize(form, KOREAN) for form in ("NFC", "NFD"))


class Item(NamedTuple):
    source_id: str
    archive: zipfile.ZipFile
    entry: str


@pytest.fixture
def make_index(tmp_path):
    """Makes an index of zips, each a list of the names of its entries."""
    opened = []

    def make(*zips):
        for number, names in enumerate(zips):
            path = tmp_path / f"images-{number}.zip"
            suite_export.write_zip(path, dict.fromkeys(names, b"bytes"))
            opened.append(archives.open_zip(path))
        return archives.PictureIndex(opened)

    yield make
    for archive in opened:
        archive.close()


@pytest.mark.parametrize(
    "content",
    [b"<!DOCTYPE html><html>Link expired</html>", b"", b"PK\x03\x04 cut off"],
    ids=["web page", "empty", "cut off"],
)
def test_open_zip_refuses_another_file(tmp_path, content):
    path = tmp_path / "labels.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"labels\.zip is not a zip archive") as caught:
        archives.open_zip(path)
    assert repr(content[:12]) in str(caught.value)


def test_list_files_leaves_out_folders_and_what_macos_adds(tmp_path):
    names = [
        "top/",
        "top/a.jpg",
        "top/.DS_Store",
        "__MACOSX/top/._a.jpg",
        ".git/b.jpg",
        "c.jpg",
    ]
    path = suite_export.write_zip(tmp_path / "a.zip", dict.fromkeys(names, b""))
    with archives.open_zip(path) as archive:
        assert archives.list_files(archive) == ["top/a.jpg", "c.jpg"]


@pytest.mark.parametrize(
    "compression",
    [
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
        zipfile.ZIP_BZIP2,
        zipfile.ZIP_LZMA,
    ],
    ids=["stored", "deflated", "bzip2", "lzma"],
)
def test_read_entry(tmp_path, compression):
    entries = {"dir/a.json": b"0123456789" * 20}
    path = suite_export.write_zip(tmp_path / "a.zip", entries, compression)
    with archives.open_zip(path) as archive:
        assert archives.read_entry(archive, "dir/a.json") == entries["dir/a.json"]

    # The data begins behind a header of 30 bytes and the name.
    damaged = bytearray(path.read_bytes())
    start = 30 + len("dir/a.json")
    damaged[start : start + 15] = b"\xff" * 15
    path.write_bytes(damaged)
    with (
        archives.open_zip(path) as archive,
        pytest.raises(InputError, match=r"a\.zip: cannot read 'dir/a\.json'"),
    ):
        archives.read_entry(archive, "dir/a.json")


def test_read_entry_refuses_an_encrypted_one(tmp_path):
    path = suite_export.write_zip(tmp_path / "a.zip", {"a.json": b"{}"})
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flags in the entry's header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the archive's directory
    path.write_bytes(content)
    with (
        archives.open_zip(path) as archive,
        pytest.raises(InputError, match=r"a\.zip: cannot read 'a\.json'.*encrypted"),
    ):
        archives.read_entry(archive, "a.json")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.jpg", "a.jpg"),
        ("/ds/a.jpg", "ds/a.jpg"),
        ("ds//sub/a.jpg", "ds/sub/a.jpg"),
        ("ds\\sub\\a.jpg", "ds/sub/a.jpg"),
        (NFD, NFC),
        ("", ""),
    ],
)
def test_normalise(path, expected):
    assert archives.normalise(path) == expected
    assert archives.normalise(expected) == expected


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("a.jpg", "ds/a.jpg"),
        ("a.jpg", "ds/a.jpg.jpg"),
        ("a.jpg", "Project/a.jpg.jpg"),
        ("a.jpg", "Project/ds/a.jpg.jpg"),
        ("a.jpg", "a.jpg"),
        ("a.jpg", "a.jpg.jpg"),
        ("frame1", "ds/frame1.jpg"),
        ("frame.1", "ds/frame.1.jpg"),
        ("b.png", "ds/b.png.jpg"),
        ("a.jpg.b.jpg", "ds/a.jpg.b.jpg"),
        ("a.jpg.b.jpg", "ds/a.jpg.b.jpg.jpg"),
        ("sub/dir/a.jpg", "ds/sub/dir/a.jpg.jpg"),
        ("sub/dir/a.jpg", "Project/sub/dir/a.jpg"),
        ("sub/dir/a.jpg", "ds\\sub\\dir\\a.jpg"),
        (NFC, f"ds/{NFD}.jpg"),
        (NFC, f"ds/{NFC}"),
    ],
)
def test_find(make_index, key, entry):
    # Beside others that only look alike.
    index = make_index(["ds/aa.jpg", "ds/b.jpg", entry, "other/c.jpg", "ds/a.jpeg.jpg"])
    archive, found = index.find("ds", key)
    assert found == entry
    assert archive.read(found) == b"bytes"


@pytest.mark.parametrize("key", ["z.jpg", "jpg", "sub/a.jpg", "a", "A.jpg", "ds/a"])
def test_find_nothing(make_index, key):
    assert make_index(["ds/a.jpg.jpg", "ds/xsub/a.jpg.jpg"]).find("ds", key) is None


@pytest.mark.parametrize(
    ("dataset", "expected"), [("ds1", "ds1/a.jpg.jpg"), ("ds2", "top/ds2/a.jpg.jpg")]
)
def test_find_prefers_the_dataset(make_index, dataset, expected):
    index = make_index(["other/a.jpg", "ds1/a.jpg.jpg", "top/ds2/a.jpg.jpg"])
    assert index.find(dataset, "a.jpg")[1] == expected


def test_find_prefers_the_exact_key(make_index):
    index = make_index(["ds/a.jpg.jpg", "ds/a.jpg"])
    assert index.find("ds", "a.jpg")[1] == "ds/a.jpg"
    assert index.find("ds", "a.jpg.jpg")[1] == "ds/a.jpg.jpg"


@pytest.mark.parametrize("folder", ["", "Project/", "ds/", "Project/ds/"])
def test_find_keys_that_end_alike(make_index, folder):
    keys = ["a.jpg", "sub/a.jpg", "sub/sub/a.jpg"]
    index = make_index([f"{folder}{key}.jpg" for key in keys])
    found = [index.find("ds", key)[1] for key in keys]
    assert found == [f"{folder}{key}.jpg" for key in keys]


def test_find_refuses_to_choose(make_index):
    index = make_index(["p/a.jpg.jpg"], ["q/a.jpg.jpg"])
    with pytest.raises(InputError, match="'a.jpg' of dataset 'ds' matches 2") as caught:
        index.find("ds", "a.jpg")
    for name in ("images-0.zip: p/a.jpg.jpg", "images-1.zip: q/a.jpg.jpg"):
        assert name in str(caught.value)


def test_position_is_that_in_the_zips(make_index):
    index = make_index(["ds/b.jpg", "ds/readme.txt", "ds/a.jpg"], ["ds/0.jpg"])
    items = [Item(key, *index.find("ds", key)) for key in ("b.jpg", "a.jpg", "0.jpg")]
    assert [index.position(item) for item in items] == [0, 2, 3]


def test_check_used_once(make_index):
    index = make_index(["Project/a.jpg.jpg", "Project/b.jpg.jpg"])
    a, b = (index.find("ds", key) for key in ("a.jpg", "b.jpg"))
    index.check_used_once([Item("ds/a.jpg", *a), Item("ds/b.jpg", *b)])
    with pytest.raises(
        InputError,
        match=r"images-0\.zip: Project/a\.jpg\.jpg .* both ds1/a\.jpg and ds2/a\.jpg",
    ):
        index.check_used_once([Item("ds1/a.jpg", *a), Item("ds2/a.jpg", *a)])
