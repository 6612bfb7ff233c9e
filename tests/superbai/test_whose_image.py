"""Whose image it is, where folders and zips are named like datasets: whole exports."""

import unicodedata

import pytest
import suite_export
from suite_export import labelled

from superbai.export import Export
from yolov3_tf2.errors import InputError


def labels_of(folder, *source_ids):
    """Writes labels for images `dataset/key`; returns the zip."""
    items = [
        labelled(key, dataset=dataset)
        for dataset, key in (each.split("/", 1) for each in source_ids)
    ]
    _, labels = suite_export.build(items)
    return suite_export.write_zip(folder / "labels.zip", labels)


def images_in(path, *names):
    """Writes a zip of images, each of its own colour; returns it."""
    contents = {
        name: suite_export.encoded_image((10 * number, 99, 99))
        for number, name in enumerate(names)
    }
    return suite_export.write_zip(path, contents)


def find(images, labels, **options):
    """Returns a dict from the names of images to their files, and the `Notes`."""
    with Export([images], labels, **options) as export:
        return {item.source_id: item.entry for item in export.items}, export.notes


@pytest.fixture(params=["cam2.zip", "images.zip"])
def second_camera(request, tmp_path):
    """Labels of two cameras, and the images of the second, some without labels."""
    names = [f"IMG_000{number}.jpg" for number in range(6)]
    labels = labels_of(tmp_path, *(f"cam{2 - n % 2}/{k}" for n, k in enumerate(names)))
    folder = "" if request.param == "cam2.zip" else "cam2/"
    paths = [f"{folder}{name}" for name in names]
    return images_in(tmp_path / request.param, *paths), labels


def test_the_zip_of_a_camera_is_forgotten(second_camera):
    images, labels = second_camera
    with pytest.raises(InputError) as caught:
        find(images, labels)
    error = str(caught.value)
    assert error.startswith(f"3 of 6 labelled images are not in {images}, e.g. cam1/")
    assert "it lies in 'cam2', the name of another dataset" in error
    # By their keys, cam1 would get the images of cam2.
    assert "--find_images_by=key" not in error
    assert "which has images there; give the images of each dataset" in error
    for find_by in ("path", "file_name"):
        found, notes = find(images, labels, skip_missing=True, find_images_by=find_by)
        assert sorted(found) == [f"cam2/IMG_000{n}.jpg" for n in (0, 2, 4)]
        assert notes.left_out["labelled images that are missing"] == 3
        assert notes.left_out["images without a label"] == 3
    found, notes = find(images, labels, find_images_by="key")
    assert len(found) == 6
    assert notes.assumed == {IN_OTHERS: 3}


IN_OTHERS = "images taken from a folder or archive that is named like another dataset"


def test_when_the_advice_is_to_find_images_by_key(tmp_path):
    images = images_in(tmp_path / "cam2.zip", "a.jpg", "b.jpg")
    for keys, advice in (
        (["cam1/a.jpg", "cam2/other.jpg"], "; if that is the name of the project, "),
        (["cam1/a.jpg", "cam2/b.jpg"], ", which has images there; give the images of "),
    ):
        labels = labels_of(tmp_path, *keys)
        with pytest.raises(InputError, match=f"name of another dataset{advice}"):
            find(images, labels)
    # Of two labels with the key, neither gets the only image.
    labels = labels_of(tmp_path, "cam1/a.jpg", "cam2/a.jpg", "cam3/b.jpg")
    with pytest.raises(InputError) as caught:
        find(images, labels)
    assert "find_images_by=key" not in str(caught.value)
    # The folder of the right dataset counts more than the name of the zip.
    labels = labels_of(tmp_path, "cam1/a.jpg", "cam2/d.jpg", "cam3/c.jpg")
    names = ("cam3/a.jpg", "cam3/c.jpg", "cam3/d.jpg")
    images = images_in(tmp_path / "cam2.zip", *names)
    _, notes = find(images, labels, find_images_by="key")
    assert notes.assumed[IN_OTHERS] == 2


def test_the_folder_of_a_project_that_is_named_like_a_dataset(tmp_path):
    keys = ["cats/c0.jpg", "cats/c1.jpg", "dogs/day/1.jpg", "dogs/night/1.jpg"]
    entries = [f"cats/{key.split('/', 1)[1]}.jpg" for key in keys]
    labels = labels_of(tmp_path, *keys)
    found, notes = find(images_in(tmp_path / "images.zip", *entries), labels)
    assert found == dict(zip(keys, entries, strict=True))
    assert notes.assumed == {
        "folder or archive 'cats' has the name of a dataset and the images of all": 1
    }
    # Not if an image is missing, if the dataset has such a folder too, or if there is
    # a folder of the other one.
    for more_keys, more_entries in (
        ([], []),
        (["cats/day/2.jpg"], ["cats/day/2.jpg.jpg"]),
        (["dogs/2.jpg"], ["cats/dogs/2.jpg.jpg"]),
        (["dogs/d.jpg"], ["cats/d.jpg.jpg"]),
    ):
        given = [*(entries if more_keys else entries[1:]), *more_entries]
        labels = labels_of(tmp_path, *keys, *more_keys)
        images = images_in(tmp_path / "images.zip", *given)
        with pytest.raises(InputError, match="'cats', the name of another dataset"):
            find(images, labels)
    # These are the last ones.
    found, _ = find(images, labels, find_images_by="key")
    assert found == dict(zip([*keys, *more_keys], given, strict=True))


@pytest.mark.parametrize(
    ("case", "images", "expected"),
    [
        ("zip_named_like_another_dataset", "cam2.zip", (3, 6)),
        ("forgotten_zip_of_a_camera", "images.zip", (3, 6)),
        ("project_folder_named_like_a_dataset", "images.zip", (0, 5)),
    ],
)
def test_the_real_cases(shared, case, images, expected):
    folder = shared / "cases" / case
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    num_missing, total = expected
    if num_missing:
        message = f"{num_missing} of {total} labelled images are not in"
        with pytest.raises(InputError, match=message):
            find(folder / images, folder / "labels.zip")
    found, _ = find(folder / images, folder / "labels.zip", skip_missing=True)
    assert len(found) == total - num_missing


def test_keys_that_differ_in_their_unicode_form_alone(tmp_path):
    forms = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    keys = [f"ds/{key}" for key in (*forms, unicodedata.normalize("NFD", "ü.jpg"))]
    labels = labels_of(tmp_path, *keys)
    images = images_in(tmp_path / "images.zip", *(f"{key}.jpg" for key in keys))
    found, _ = find(images, labels)
    # Without a twin, its name is in NFC.
    names = [*keys[:2], unicodedata.normalize("NFC", keys[2])]
    assert found == {n: f"{key}.jpg" for n, key in zip(names, keys, strict=True)}


def test_a_few_other_files_for_the_same_labels_are_named(tmp_path):
    keys = [f"ds/{number}.jpg" for number in range(11)]
    entries = [f"all/{key}.jpg" for key in keys]
    others = ["backup/ds/0.jpg.jpg", "all/ds/no_label.jpg.jpg", "all/ds/1.jpg"]
    images = images_in(tmp_path / "images.zip", *entries, *others)
    found, notes = find(images, labels_of(tmp_path, *keys))
    assert found == dict(zip(keys, entries, strict=True))
    assert notes.examples == {
        "images that fit labels which have another file": [others[0], others[2]],
        "images without a label": [others[1]],
    }
