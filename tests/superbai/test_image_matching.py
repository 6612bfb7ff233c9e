"""Finding the images of data keys among the files of archives."""

import time
import unicodedata

import pytest
import suite_export

from superbai.image_matching import match_images
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import archives

KOREAN = "고양이/사진.jpg"
NFC, NFD = (unicodedata.normalize(form, KOREAN) for form in ("NFC", "NFD"))


@pytest.fixture
def find(tmp_path):
    """Matches keys of `dataset/key` to zips, each a list of the names of its entries.

    Each entry has its own content, or that of a dict of them. A key that begins with
    `-` is of a label that is left out. Returns a dict from those found to their entry,
    the number told by name alone and the names of the rest.
    """
    opened = []

    def run(keys, *zips, names=None):
        for number, entries in enumerate(zips):
            contents = {name: f"{number} {name}".encode() for name in entries}
            if isinstance(entries, dict):
                contents = entries
            name = (names or {}).get(number, f"images-{number}")
            path = suite_export.write_zip(tmp_path / f"{name}.zip", contents)
            opened.append(archives.open_archive(path))
        identities = [tuple(key.removeprefix("-").split("/", 1)) for key in keys]
        wanted = {tuple(key.split("/", 1)) for key in keys if key[0] != "-"}
        matched = match_images(identities, opened[-len(zips) :], wanted)
        found = {"/".join(i): entry.name for i, entry in matched.entries.items()}
        return found, len(matched.by_name), [entry.name for entry in matched.rest]

    yield run
    for archive in opened:
        archive.close()


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("a.jpg", "ds/a.jpg"),
        ("a.jpg", "ds/a.jpg.jpg"),
        ("a.jpg", "Project/a.jpg.jpg"),
        ("a.jpg", "Project/ds/a.jpg.jpg"),
        ("a.jpg", "Project/ds/images/a.jpg.jpg"),
        ("a.jpg", "a.jpg"),
        ("a.jpg", "a.jpg.jpg"),
        ("frame1", "ds/frame1.jpg"),
        ("frame1", "ds/frame1"),
        ("frame.1", "ds/frame.1.jpg"),
        ("b.png", "ds/b.png.jpg"),
        ("a.jpg.b.jpg", "ds/a.jpg.b.jpg"),
        ("a.jpg.b.jpg", "ds/a.jpg.b.jpg.jpg"),
        ("A.JPG", "ds/A.JPG.jpg"),
        ("sub/dir/a.jpg", "ds/sub/dir/a.jpg.jpg"),
        ("sub/dir/a.jpg", "Project/sub/dir/a.jpg"),
        ("a b.jpg", "ds/a b.jpg.jpg"),
        (NFC, f"ds/{NFD}.jpg"),
        (NFC, f"ds/{NFC}"),
    ],
)
def test_a_key(find, key, entry):
    # Among others that only look similar.
    others = ["ds/aa.jpg", "ds/c.jpg", "other/c.jpg", "ds/a.jpeg.jpg", "ds/frame1.txt"]
    assert find([f"ds/{key}"], [*others, entry]) == ({f"ds/{key}": entry}, 0, others)


@pytest.mark.parametrize("key", ["z.jpg", "jpg", "sub/a.jpg", "a", "A.jpg", "ds/a"])
def test_no_match(find, key):
    entries = ["ds/a.jpg.jpg", "ds/xsub/a.jpg.jpg"]
    assert find([f"ds/{key}"], entries) == ({}, 0, entries)


@pytest.mark.parametrize("folder", ["", "Project/", "ds/", "Project/ds/"])
def test_keys_that_end_alike(find, folder):
    keys = ["a.jpg", "sub/a.jpg", "sub/sub/a.jpg"]
    expected = {f"ds/{key}": f"{folder}{key}.jpg" for key in keys}
    assert find(expected, expected.values())[0] == expected


@pytest.mark.parametrize("more", ["", ".jpg"])
def test_a_key_that_is_another_key_with_an_extension(find, more):
    for keys in (["a", "a.jpg"], ["a.jpg", "a.jpg.jpg"], ["-a", "a.jpg"]):
        names = [key.removeprefix("-") for key in keys]
        expected = {f"ds/{name}": f"ds/{name}{more}" for name in names}
        given = [f"{'-' * key.startswith('-')}ds/{key.lstrip('-')}" for key in keys]
        assert find(given, expected.values())[0] == expected


def test_the_folder_of_the_dataset_goes_first(find):
    entries = ["other/a.jpg", "ds1/a.jpg.jpg", "top/ds2/a.jpg.jpg"]
    expected = {"ds1/a.jpg": entries[1], "ds2/a.jpg": entries[2]}
    assert find(expected, entries) == (expected, 0, ["other/a.jpg"])
    # Also deeper, and above other folders.
    entries = ["P/ds/images/a.jpg.jpg", "other/a.jpg.jpg"]
    assert find(["ds/a.jpg"], entries)[0] == {"ds/a.jpg": entries[0]}


def test_the_exact_key_goes_first(find):
    entries = ["ds/a.jpg.jpg", "ds/a.jpg"]
    assert find(["ds/a.jpg"], entries)[0] == {"ds/a.jpg": "ds/a.jpg"}


@pytest.mark.parametrize(
    ("keys", "entries"),
    [
        # Two datasets, only one of which has its image.
        (["-ds1/a.jpg", "ds2/a.jpg"], ["ds1/a.jpg.jpg"]),
        (["ds1/a.jpg", "ds2/a.jpg"], ["P/ds1/x/a.jpg.jpg"]),
        # A key in a folder that ends like another key.
        (["-ds/sub/a.jpg", "ds/a.jpg"], ["ds/sub/a.jpg.jpg"]),
    ],
)
def test_the_image_of_one_label_is_not_used_for_another(find, keys, entries):
    found, by_name, rest = find(keys, entries)
    assert found == {keys[0].removeprefix("-"): entries[0]}
    assert not by_name and not rest


def test_an_unused_image_is_not_used_for_another_dataset(find):
    entries = ["ds1/a.jpg.jpg", "ds2/b.jpg.jpg"]
    found, _, rest = find(["ds1/b.jpg", "ds2/b.jpg"], entries)
    assert found == {"ds2/b.jpg": "ds2/b.jpg.jpg"}
    assert rest == ["ds1/a.jpg.jpg"]


def test_archives_named_as_datasets(find):
    names = {0: "ds1", 1: "ds2"}
    contents = [{"a.jpg": b"one"}, {"a.jpg": b"two"}]
    found, _, _ = find(["ds1/a.jpg", "ds2/a.jpg"], *contents, names=names)
    assert found == {"ds1/a.jpg": "a.jpg", "ds2/a.jpg": "a.jpg"}
    # The archive's name is not a folder: these are not in a dataset `images`.
    keys = ["images/a.jpg", "ds/b.jpg"]
    found, _, _ = find(keys, ["P/a.jpg.jpg", "P/b.jpg.jpg"], names={0: "images"})
    assert found == {"images/a.jpg": "P/a.jpg.jpg", "ds/b.jpg": "P/b.jpg.jpg"}


def test_identical_images_are_used_one_after_the_other(find):
    same = [{"P1/a.jpg.jpg": b"bytes"}, {"P2/a.jpg.jpg": b"bytes"}]
    found, _, rest = find(["ds1/a.jpg", "ds2/a.jpg"], *same)
    assert found == {"ds1/a.jpg": "P1/a.jpg.jpg", "ds2/a.jpg": "P2/a.jpg.jpg"}
    assert not rest
    found, _, rest = find(["ds1/a.jpg"], *same)
    assert found == {"ds1/a.jpg": "P1/a.jpg.jpg"} and rest == ["P2/a.jpg.jpg"]


def test_several_different_images_are_refused(find):
    zips = ["p/a.jpg.jpg"], ["q/a.jpg.jpg"]
    with pytest.raises(InputError, match="'a.jpg' of dataset 'ds' matches 2") as caught:
        find(["ds/a.jpg"], *zips)
    for name in ("images-0.zip: p/a.jpg.jpg", "images-1.zip: q/a.jpg.jpg"):
        assert name in str(caught.value)
    # Except for a label that is left out.
    assert find(["-ds/a.jpg"], *zips)[0] == {}


@pytest.mark.parametrize(
    "keys", [["ds1/a.jpg", "ds2/a.jpg"], ["-ds1/a.jpg", "ds2/a.jpg"]]
)
def test_one_image_for_two_labels_is_refused(find, keys):
    message = r"images-0\.zip: P/a\.jpg\.jpg is .* both ds1/a\.jpg and ds2/a\.jpg"
    with pytest.raises(InputError, match=message):
        find(keys, ["P/a.jpg.jpg"])


def test_file_name_only(find):
    entries = ["p/a.jpg.jpg", "p/b.jpg", "q/b.jpg", "q/c.jpg"]
    keys = [f"ds/sub/{name}.jpg" for name in "abcd"]
    found, by_name, rest = find(keys, entries)
    assert found == {keys[0]: "p/a.jpg.jpg", keys[2]: "q/c.jpg"}
    assert by_name == 2 and rest == ["p/b.jpg", "q/b.jpg"]
    # Not where two labels have the name.
    assert find(["ds/sub/a.jpg", "ds/other/a.jpg"], entries)[0] == {}


@pytest.mark.parametrize("more", ["", ".jpg"])
@pytest.mark.parametrize("has_datasets", [True, False])
def test_many_images_with_the_same_name_are_fast(find, more, has_datasets):
    keys = [f"ds/seq{number}/image.jpg" for number in range(5000)]
    if has_datasets:
        keys = [f"seq{number}/image.jpg" for number in range(5000)]
    entries = [f"P/{key.removeprefix('ds/')}{more}" for key in keys]
    start = time.perf_counter()
    found, _, rest = find(keys, entries)
    assert time.perf_counter() - start < 10
    assert list(found.values()) == entries and not rest
