"""Finding the images of data keys among the files of archives."""

import time
import unicodedata

import pytest
import random_projects
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

    def run(keys, *zips, names=None, by="path"):
        for number, entries in enumerate(zips):
            contents = {name: f"{number} {name}".encode() for name in entries}
            if isinstance(entries, dict):
                contents = entries
            name = (names or {}).get(number, f"images-{number}")
            path = suite_export.write_zip(tmp_path / f"{name}.zip", contents)
            opened.append(archives.open_archive(path))
        identities = [tuple(key.removeprefix("-").split("/", 1)) for key in keys]
        wanted = {tuple(key.split("/", 1)) for key in keys if key[0] != "-"}
        matched = match_images(identities, opened[-len(zips) :], wanted, find_by=by)
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


def test_all_keys_decide_whether_an_extension_was_added(find):
    entries = ["ds/a.jpg.jpg", "ds/a.jpg"]
    with pytest.raises(InputError, match="'a.jpg' of dataset 'ds' matches 2 different"):
        find(["ds/a.jpg"], entries)
    found, _, rest = find(["ds/a.jpg", "ds/b.jpg"], [*entries, "ds/b.jpg.jpg"])
    assert found == {"ds/a.jpg": "ds/a.jpg.jpg", "ds/b.jpg": "ds/b.jpg.jpg"}
    assert rest == ["ds/a.jpg"]
    # `ds/a.jpg` may be the image of a key `a` here, which has no label.
    keys = ["ds/a.jpg", "ds/b.jpg", "ds/c"]
    found, _, rest = find(keys, ["ds/a.jpg", "ds/b.jpg.jpg", "ds/c.jpg"])
    assert "ds/a.jpg" not in found and rest == ["ds/a.jpg"]


@pytest.mark.parametrize("number", [1, 5, 6])
def test_two_folders_for_the_same_labels_are_refused(find, number):
    """Also if one has fewer images: nobody could tell which are right."""
    keys = [f"ds/{n}.jpg" for n in range(6)]
    entries = [f"old/{key}" for key in keys] + [f"new/{key}" for key in keys[:number]]
    with pytest.raises(InputError, match="matches 2 .*; give only the right one.$"):
        find(keys, entries)
    # The name of the dataset would decide.
    entries = [entry.replace("ds/", "") for entry in entries]
    with pytest.raises(InputError, match="or rename its folder to the name of the da"):
        find(keys, entries)


@pytest.mark.parametrize(
    ("keys", "entries"),
    [
        # Two datasets, only one of which has its image.
        (["-ds1/a.jpg", "ds2/a.jpg"], ["ds1/a.jpg.jpg"]),
        (["ds1/a.jpg", "ds2/a.jpg"], ["P/ds1/x/a.jpg.jpg"]),
    ],
)
def test_the_image_of_one_label_is_not_used_for_another(find, keys, entries):
    found, by_name, rest = find(keys, entries)
    assert found == {keys[0].removeprefix("-"): entries[0]}
    assert not by_name and not rest


@pytest.mark.parametrize("keys", [["ds/sub/a.jpg", "ds/a.jpg"], ["-ds/a.jpg"]])
def test_a_folder_that_may_belong_to_the_key(find, keys):
    keys = list({*keys, "ds/sub/a.jpg"})
    message = r"ds/sub/a\.jpg\.jpg is the image of both ds/sub/a\.jpg \(as "
    message += r"<dataset>/<key>\.jpg\) and ds/a\.jpg \(as <dataset>/sub/<key>\.jpg\)"
    with pytest.raises(InputError, match=message):
        find(keys, ["ds/sub/a.jpg.jpg"])
    # If there are many others, they decide.
    more = [f"ds/{number}/b.jpg" for number in range(10)]
    found = find([*keys, *more], ["ds/sub/a.jpg", *more])[0]
    assert found == {key: key for key in ["ds/sub/a.jpg", *more]}


def test_a_key_in_a_folder_named_like_another_dataset(find):
    keys, entries = ["a/b/x.jpg", "b/x.jpg"], ["b/x.jpg", "x.jpg"]
    found, _, rest = find(keys, entries)
    assert found == {"a/b/x.jpg": "b/x.jpg", "b/x.jpg": "x.jpg"} and not rest
    # This file alone is either.
    message = r"b/x\.jpg is the image of both .*\(as <(dataset|key)>.* and .*\(as <"
    with pytest.raises(InputError, match=message):
        find(keys, ["b/x.jpg"])
    assert find(keys, ["x.jpg"])[0] == {"b/x.jpg": "x.jpg"}
    # With folders for datasets.
    expected = {"a/b/x.jpg": "a/b/x.jpg", "b/x.jpg": "b/x.jpg"}
    assert find(keys, expected.values())[0] == expected


def test_a_folder_with_images_of_a_dataset_without_labels(find):
    keys = ["cam1/a.jpg", "cam1/b.jpg", "cam1/c.jpg"]
    found, _, rest = find(keys, ["cam1/a.jpg", "cam1/b.jpg", "cam2/c.jpg"])
    assert found == {key: key for key in keys[:2]} and rest == ["cam2/c.jpg"]
    # It has more of the names, but is not cam1.
    others = ["cam2/a.jpg", "cam2/b.jpg", "cam2/c.jpg"]
    found, _, rest = find(keys, ["cam1/a.jpg", *others])
    assert found == {keys[0]: keys[0]} and rest == others
    # Another folder beside it is that of a dataset.
    found, _, rest = find(["cam1/a.jpg", "cam3/x.jpg"], ["cam3/x.jpg", "cam2/a.jpg"])
    assert found == {"cam3/x.jpg": "cam3/x.jpg"} and rest == ["cam2/a.jpg"]


def test_a_folder_with_a_few_equal_names_is_no_form(find):
    keys = [f"ds/{number}.jpg" for number in range(9)]
    entries = [f"P/{number}.jpg" for number in range(8)]
    backup = [f"backup/{name}.jpg" for name in (8, "x", "y")]
    found, _, rest = find(keys, [*entries, *backup])
    assert list(found.values()) == entries and rest == backup
    # Many make one.
    found, _, rest = find(keys, [*entries, backup[0]])
    assert list(found.values()) == [*entries, backup[0]] and not rest


def test_zips_of_different_forms(find):
    found, _, rest = find(
        ["ds1/a.jpg", "ds1/b.jpg", "ds2/a.jpg", "ds2/c.jpg"],
        ["P1/ds1/a.jpg.jpg", "P1/ds1/b.jpg.jpg"],
        ["P2/ds2/a.jpg"],
        ["c.jpg"],
    )
    assert list(found.values()) == [
        "P1/ds1/a.jpg.jpg",
        "P1/ds1/b.jpg.jpg",
        "P2/ds2/a.jpg",
        "c.jpg",
    ]
    assert not rest


@pytest.mark.parametrize("is_twin", [True, False])
def test_names_that_differ_in_their_unicode_form_alone(is_twin):
    archive = random_projects.Archive("images.zip")
    archive.contents = {f"ds/{NFC}": b"NFC", f"ds/{NFD}": b"NFD"}
    exact = {("ds", NFC): ("ds", NFD)}
    identities = [("ds", NFC)]
    if is_twin:
        exact, identities = {}, [("ds", NFC), ("ds", NFD)]
    match = match_images(identities, [archive], set(identities), exact=exact)
    names = [entry.name for entry in match.entries.values()]
    assert names == [f"ds/{NFC}", f"ds/{NFD}"][-len(identities) :]


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
    # One that is forgotten is missing.
    found, _, _ = find(["ds1/a.jpg", "ds2/a.jpg"], contents[1], names={0: "ds2"})
    assert found == {"ds2/a.jpg": "a.jpg"}
    found, _, rest = find(["ds1/a.jpg", "ds2/b.jpg"], ["a.jpg"], names={0: "ds2"})
    assert found == {} and rest == ["a.jpg"]
    # Unless the names of archives are said to mean nothing.
    keys, entries = ["images/a.jpg", "ds/b.jpg"], ["P/a.jpg.jpg", "P/b.jpg.jpg"]
    found, _, _ = find(keys, entries, names={0: "images"}, by="key")
    assert found == dict(zip(keys, entries, strict=True))
    found, _, _ = find(keys, entries, names={0: "images"})
    assert found == {keys[0]: entries[0]}
    # A folder within counts more.
    expected = {"ds1/a.jpg": "ds1/a.jpg", "ds2/a.jpg": "ds2/a.jpg"}
    assert find(expected, expected.values(), names={0: "ds2"})[0] == expected


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
    assert find(keys, entries)[0] == {}
    found, by_name, rest = find(keys, entries, by="file_name")
    assert found == {keys[0]: "p/a.jpg.jpg", keys[2]: "q/c.jpg"}
    assert by_name == 2 and rest == ["p/b.jpg", "q/b.jpg"]
    for keys in (
        # Two labels have the name.
        ["ds/sub/a.jpg", "ds/other/a.jpg"],
        # A file fits two names.
        ["ds/sub/c", "ds/sub/c.jpg"],
        # The folder is another dataset's.
        ["ds/sub/c.jpg", "-q/x.jpg"],
    ):
        assert find(keys, entries, by="file_name")[0] == {}


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
