"""The picture of a data key among the files of archives."""

import unicodedata
from typing import NamedTuple

import pytest
import suite_export

from yolov3_tf2 import archives
from yolov3_tf2.errors import InputError
from yolov3_tf2.picture_index import PictureIndex

KOREAN = "고양이/사진.jpg"
NFC, NFD = (unicodedata.normalize(form, KOREAN) for form in ("NFC", "NFD"))


class Item(NamedTuple):
    source_id: str
    archive: archives.Zip
    entry: str


@pytest.fixture
def make_index(tmp_path):
    """Makes an index of zips, each a list of the names of its entries.

    Each entry has its own content, or that of a dict of them.
    """
    opened = []

    def make(*zips):
        for number, names in enumerate(zips):
            path = tmp_path / f"images-{number}.zip"
            contents = {name: f"{number} {name}".encode() for name in names}
            if isinstance(names, dict):
                contents = names
            suite_export.write_zip(path, contents)
            opened.append(archives.open_archive(path))
        return PictureIndex(opened)

    yield make
    for archive in opened:
        archive.close()


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
        (NFC, f"ds/{NFD}.jpg"),
        (NFC, f"ds/{NFC}"),
    ],
)
def test_find(make_index, key, entry):
    # Beside others that only look alike.
    index = make_index(["ds/aa.jpg", "ds/b.jpg", entry, "other/c.jpg", "ds/a.jpeg.jpg"])
    archive, found = index.find("ds", key)
    assert found == entry
    assert archive.read(found) == f"0 {entry}".encode()


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
    with pytest.raises(
        InputError, match="'a.jpg' of dataset 'ds' matches 2 diff"
    ) as caught:
        index.find("ds", "a.jpg")
    for name in ("images-0.zip: p/a.jpg.jpg", "images-1.zip: q/a.jpg.jpg"):
        assert name in str(caught.value)


def test_find_takes_any_of_equal_pictures(make_index):
    index = make_index({"p/a.jpg.jpg": b"bytes"}, {"q/a.jpg.jpg": b"bytes"})
    assert index.find("ds", "a.jpg")[1] == "p/a.jpg.jpg"


def test_find_takes_the_only_path_that_names_the_dataset(make_index):
    index = make_index(["other/images/a.jpg.jpg", "ds/images/a.jpg.jpg"])
    assert index.find("ds", "a.jpg")[1] == "ds/images/a.jpg.jpg"
    with pytest.raises(InputError, match="matches 2 different pictures"):
        index.find("third", "a.jpg")


def test_find_by_name(make_index):
    index = make_index(["p/a.jpg.jpg", "p/b.jpg", "q/b.jpg", "q/c.jpg"])
    assert index.find_by_name("sub/a.jpg")[1] == "p/a.jpg.jpg"
    assert index.find_by_name("sub/c.jpg")[1] == "q/c.jpg"
    assert index.find_by_name("sub/b.jpg") is None
    assert index.find_by_name("sub/d.jpg") is None


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
