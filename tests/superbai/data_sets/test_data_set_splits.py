"""The splits of data sets: from folders, file names and lists."""

import time

import pytest
import suite_export
from annotated_data import as_json, coco_json, open_data, voc_xml
from suite_export import write_zip

from superbai import formats, splits
from superbai.data_sets.files import split_of_name, split_of_words
from yolov3_tf2.errors import InputError

NAMES = ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
SIZE = (64, 48)
LINE = b"0 .5 .5 .25 .25\n"


def image(number):
    return suite_export.encoded_image((number, 0, 0))


def coco(*names):
    boxes = [(n, 0, 8, 8, 16, 16) for n in range(len(names))]
    return as_json(coco_json([(name, *SIZE) for name in names], boxes, ["cat"]))


def xml(name):
    return voc_xml(name, SIZE, [("cat", (1, 2, 30, 40), False)])


def split(folder, entries, images=None, **options):
    """Returns the identities of the images by split, and the sentence on it."""
    with open_data(folder, entries, images, **options) as data:
        by_split, how = splits.split_items(
            data.items, 0.5, data.name, source=data.split_source
        )
    return {s: [i.source_id for i in items] for s, items in by_split.items()}, how


def roboflow(folders, yaml=b""):
    """A YOLO data set with an image in each of some folders."""
    entries = {"data.yaml": b"names: [cat]\n" + yaml}
    for number, folder in enumerate(folders):
        entries[f"{folder}/images/{number}.jpg"] = image(number)
        entries[f"{folder}/labels/{number}.txt"] = LINE
    return entries


AS_FOLDERS = {
    "train": ["train/images/0.jpg"],
    "validation": ["valid/images/1.jpg"],
    "test": ["test/images/2.jpg"],
}
SPLIT_BY = "the splits are those of the data set, by its folders, files or lists"


@pytest.mark.parametrize(
    "yaml",
    [
        b"",
        b"train: ../train/images\nval: ../valid/images\ntest: ../test/images\n",
        b"path: /home/me/set\ntrain: train\nval: valid/images\ntest: [test/images]\n",
        b"train: /a/b/train/images/\nval: C:\\set\\valid\ntest: ./test\n",
    ],
)
def test_yolo_folders(tmp_path, yaml):
    entries = roboflow(("train", "valid", "test"), yaml)
    assert split(tmp_path, entries) == (AS_FOLDERS, SPLIT_BY)
    # In a folder around everything, and with the images apart.
    assert split(tmp_path, {f"x/{n}": c for n, c in entries.items()})[0] == AS_FOLDERS
    images = {n: c for n, c in entries.items() if n.endswith(".jpg")}
    labels = {n: c for n, c in entries.items() if n not in images}
    assert split(tmp_path, labels, images)[0] == AS_FOLDERS


def test_the_folders_of_a_yaml_count_more_than_their_names(tmp_path):
    yaml = b"train: [test, new]\nval: train\n"
    entries = roboflow(("train", "test", "new", "old"), yaml)
    by_split, how = split(tmp_path, entries)
    assert by_split == {
        "train": ["test/images/1.jpg", "new/images/2.jpg"],
        "validation": [],
        "test": ["train/images/0.jpg"],
    }
    assert "no image is for testing, so those for validation are" in how
    with open_data(tmp_path, entries) as data:
        unlisted = data.notes.left_out["images that the data set does not list"]
    assert unlisted == 1


def test_images_are_never_those_of_another_split(tmp_path):
    # Without the folder `valid`, `images` alone could be that of `train`.
    entries = roboflow(
        ("train", "train"), b"train: ../train/images\nval: ../valid/images\n"
    )
    by_split, how = split(tmp_path, entries)
    assert "the data set does not have several splits: 50% of the images" in how
    assert len(by_split["train"]) == len(by_split["test"]) == 1


def test_a_missing_training_folder_is_refused(tmp_path):
    entries = roboflow(("valid", "test"), b"train: train\nval: valid\ntest: test\n")
    with pytest.raises(InputError, match="expected images for training in 'train'"):
        split(tmp_path, entries)


@pytest.mark.parametrize("yaml", [b"", b"train: train\nval: valid\n"])
def test_a_split_without_labels(tmp_path, yaml):
    entries = roboflow(("train", "train", "valid"), yaml)
    del entries["valid/labels/2.txt"]
    if yaml:
        words = "none of the 1 images for validation has a label file; are those of"
        with pytest.raises(InputError, match=words):
            split(tmp_path, entries)
    else:
        # Nothing says that they are images of the data set.
        by_split, _ = split(tmp_path, entries)
        assert sum(map(len, by_split.values())) == 2


def test_the_same_images_in_all_splits(tmp_path):
    entries = roboflow(("train", "train"), b"train: train/images\nval: train/images\n")
    with open_data(tmp_path, entries) as data:
        assert [item.tags for item in data.items] == [frozenset()] * 2
        assert list(data.notes.assumed) == [
            "train and validation name the same images: taken as one split, train"
        ]


@pytest.mark.parametrize(
    ("yaml", "expected", "names"),
    [
        (b"train: a\nval: b\ntest: b\n", ("a", "b"), "validation and test"),
        (b"train: a\nval: a\ntest: b\n", ("a", "b"), "train and validation"),
        (b"train: a\nval: b\ntest: a\n", ("a", "b"), "train and test"),
    ],
)
def test_two_splits_with_the_same_images(tmp_path, yaml, expected, names):
    entries = roboflow(("a", "b"), yaml)
    by_split, _ = split(tmp_path, entries)
    train, test = (
        f"{folder}/images/{number}.jpg" for number, folder in enumerate(expected)
    )
    assert by_split == {"train": [train], "validation": [], "test": [test]}
    with open_data(tmp_path, entries) as data:
        (reason,) = data.notes.assumed
    assert reason.startswith(f"{names} name the same images: taken as one split,")


def test_two_voc_lists_with_the_same_images(tmp_path):
    entries = {f"Annotations/{name[0]}.xml": xml(name) for name in NAMES}
    entries |= {f"JPEGImages/{n}": image(i) for i, n in enumerate(NAMES)}
    lists = {"train": b"1\n", "val": b"2\n3\n4\n", "test": b"2\n3\n4\n"}
    main = "ImageSets/Main/{}.txt"
    entries |= {main.format(name): content for name, content in lists.items()}
    by_split, _ = split(tmp_path, entries)
    assert {s: len(found) for s, found in by_split.items()} == {
        "train": 1,
        "validation": 0,
        "test": 3,
    }
    entries[main.format("test")] = b"1\n2\n"
    words = r"(train|val|test)\.txt: expected each image in one split, got 1 image in "
    with pytest.raises(InputError, match=words):
        split(tmp_path, entries)


def test_an_image_in_two_splits_is_refused(tmp_path):
    entries = roboflow(("a", "b"), b"train: [a, b]\nval: b\n")
    with pytest.raises(
        InputError,
        match="data.yaml: expected each image in one split, got 1 image in train and "
        "validation, e.g. b/images/1.jpg; name each image once",
    ):
        split(tmp_path, entries)


@pytest.mark.parametrize(
    "extra",
    [
        {
            "obj.data": b"classes=1\ntrain = data/train.txt\nvalid = data/valid.txt\n"
            b"names = data/obj.names\n",
            "obj.names": b"cat",
        },
        {"data.yaml": b"names: [cat]\ntrain: train.txt\nval: valid.txt\n"},
        {"data.yaml": b"names: [cat]\n"},
    ],
)
def test_lists_of_images(tmp_path, extra):
    entries = {
        "train.txt": b"\xef\xbb\xbfdata/obj_train_data/b/1.jpg\r\n\r\n",
        "valid.txt": b"/home/me/obj_train_data/a/1.jpg\n./obj_train_data/3.jpg\n",
        "obj_train_data/a/1.jpg": image(0),
        "obj_train_data/a/1.txt": LINE,
        "obj_train_data/b/1.jpg": image(1),
        "obj_train_data/b/1.txt": LINE,
        "obj_train_data/3.jpg": image(2),
        "obj_train_data/4.jpg": image(3),
        "obj_train_data/4.txt": LINE,
        **extra,
    }
    assert split(tmp_path, entries)[0] == {
        "train": ["b/1.jpg"],
        "validation": [],
        "test": ["a/1.jpg", "3.jpg"],
    }
    with open_data(tmp_path, entries) as data:
        assert data.notes.left_out["images that the data set does not list"] == 1
        assert data.notes.assumed == {
            "images without a label file: taken for images without objects": 1
        }
    del entries["obj_train_data/3.jpg"]
    with pytest.raises(InputError, match=r"1 of 4 labelled images are not in .*3\.jpg"):
        split(tmp_path, entries)
    assert split(tmp_path, entries, skip_missing=True)[0]["test"] == ["a/1.jpg"]


def listed(train, validation, **others):
    """A YOLO data set of three images, with lists."""
    entries = {"classes.txt": b"cat", "train.txt": train, "val.txt": validation}
    for number in (1, 2, 3):
        entries[f"images/{number}.jpg"] = image(number)
        entries[f"labels/{number}.txt"] = LINE
    return entries | others


@pytest.mark.parametrize(
    "lines",
    [
        ("images/1.jpg\r\nimages/2.jpg\r\n", "images/3.jpg"),
        ("# mine\n\nimages/1.jpg\nimages/2.jpg", "# mine\nimages/3.jpg\n"),
        ("1\n2\n", "3\n"),
        ("/a/b/images/2\n/a/b/images/1", "/a/b/images/3"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_forms_of_lists(tmp_path, lines, encoding):
    entries = listed(*(each.encode(encoding) for each in lines))
    by_split, _ = split(tmp_path, entries)
    assert by_split == {
        "train": ["1.jpg", "2.jpg"],
        "validation": [],
        "test": ["3.jpg"],
    }


def test_a_list_does_not_take_the_image_of_another_folder(tmp_path):
    entries = {
        "classes.txt": b"cat",
        "train.txt": b"data/cam1/1.jpg\ndata/cam2/2.jpg\n",
        "val.txt": b"data/cam2/3.jpg\n",
    }
    for number in (1, 2, 3):
        entries[f"images/cam2/{number}.jpg"] = image(number)
        entries[f"labels/cam2/{number}.txt"] = LINE
    with pytest.raises(InputError, match=r"1 of 4 labelled images.*data/cam1/1.jpg"):
        split(tmp_path, entries)
    # Nothing else has its folder.
    entries["train.txt"] = b"data/all/1.jpg\ndata/all/2.jpg\n"
    entries["val.txt"] = b"data/all/3.jpg\n"
    assert split(tmp_path, entries)[0]["test"] == ["3.jpg"]


def test_long_lists(tmp_path):
    """No line is compared with each image."""
    entries = {"classes.txt": b"cat", "labels/f0/img.txt": LINE}
    names = [f"f{number}/img.jpg" for number in range(3000)]
    entries |= {f"images/{name}": image(0) for name in names}
    lines = [f"/home/me/images/{name}" for name in names]
    entries["train.txt"] = "\n".join(lines[:-1]).encode()
    entries["val.txt"] = lines[-1].encode()
    entries["labels/f2999/img.txt"] = LINE
    start = time.monotonic()
    with open_data(tmp_path, entries) as data:
        assert len(data.items) == 3000
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("yaml", [b"train: x\n\tnames: [cat]\n", b"names: [cat\nnc: 1"])
def test_a_damaged_yaml_is_refused(tmp_path, yaml):
    entries = listed(b"1", b"2\n3", **{"data.yaml": yaml})
    with pytest.raises(InputError, match="data.yaml: malformed YAML"):
        split(tmp_path, entries)
    # That of another program is not about the data set.
    del entries["data.yaml"]
    assert split(tmp_path, entries | {"ci.yml": b"on: [push\n\tx: 1"})


def test_a_list_of_names_that_contradicts_the_yaml(tmp_path, caplog):
    yaml = b"names: [dog, cat]\n"
    entries = roboflow(("train", "test"), yaml) | {"classes.txt": b"cat\ndog"}
    entries["data.yaml"] = yaml
    with open_data(tmp_path, entries) as data:
        assert data.class_names == ["dog", "cat"]
    (message,) = [m for m in caplog.messages if "other class names" in m]
    assert "classes.txt has other" in message and message.endswith(": dog, cat")
    open_data(tmp_path, entries | {"classes.txt": b"dog\ncat\n\n"}).close()
    assert len([m for m in caplog.messages if "other class names" in m]) == 1


@pytest.mark.parametrize("names", [b"\ncat\ndog", b"cat\r\n \r\ndog\r\n"])
def test_a_blank_line_between_class_names(tmp_path, names):
    """Programs count it: another number for each class after it."""
    entries = listed(b"1", b"2\n3", **{"classes.txt": names})
    with pytest.raises(InputError, match="classes.txt: line .: expected a class name"):
        split(tmp_path, entries)


@pytest.mark.parametrize(
    "place", ["{split}/_annotations.coco.json", "{split}2017.json"]
)
def test_coco_files_for_each_split(tmp_path, place):
    # Two images have one name.
    names = {"train": ["1.jpg", "2.jpg"], "val": ["1.jpg"], "test": ["4.jpg"]}
    entries = {place.format(split=s): coco(*names[s]) for s in names}
    paths = [f"{s}/{name}" for s in names for name in names[s]]
    entries |= {path: image(number) for number, path in enumerate(paths)}
    expected = {
        "train": ["train/1.jpg", "train/2.jpg"],
        "validation": ["val/1.jpg"],
        "test": ["test/4.jpg"],
    }
    assert split(tmp_path, entries) == (expected, SPLIT_BY)
    with open_data(tmp_path, entries) as data:
        encoded = {item.source_id: data.read(item).encoded for item in data.items}
    assert encoded["val/1.jpg"] == entries["val/1.jpg"] != encoded["train/1.jpg"]
    del entries["val/1.jpg"]
    with pytest.raises(InputError, match="1 of 4 labelled images are not in"):
        split(tmp_path, entries)


def test_archives_named_like_splits(tmp_path):
    labels = [
        write_zip(tmp_path / name, {f"instances_{name[:-4]}2017.json": coco("1.jpg")})
        for name in ("train.zip", "val.zip")
    ]
    folder = tmp_path / "images"
    folder.mkdir()
    images = [
        write_zip(folder / name, {"1.jpg": image(number)})
        for number, name in enumerate(("train.zip", "val.zip"))
    ]
    with formats.open_export(images, labels) as data:
        found = [(i.source_id, *i.tags, data.read(i).encoded) for i in data.items]
    assert found == [
        ("train/1.jpg", "train", image(0)),
        ("val/1.jpg", "validation", image(1)),
    ]
    with pytest.raises(InputError, match="1 of 2 labelled images are not in"):
        formats.open_export(images[:1], labels)


@pytest.mark.parametrize(("folder", "split_name"), [("test", "test"), ("val", "test")])
def test_images_in_no_split_are_for_training(tmp_path, folder, split_name):
    """Only a folder of test or validation images has the name of a split."""
    entries = roboflow(("pics", "pics", folder, "pics"))
    by_split, _ = split(tmp_path, entries)
    assert by_split[split_name] == [f"{folder}/images/2.jpg"]
    assert by_split["train"] == [f"pics/images/{n}.jpg" for n in (0, 1, 3)]
    with open_data(tmp_path, entries) as data:
        reason = "images in no split: for training, as others are in a split"
        assert data.notes.assumed == {reason: 3}
    # A single split for training is none.
    entries = roboflow(("pics", "pics", "train", "pics"))
    assert "the data set does not have several splits" in split(tmp_path, entries)[1]


def test_voc_lists(tmp_path):
    entries = {}
    for number, name in enumerate(NAMES):
        for year in ("VOC2007", "VOC2012"):
            stem = name[0]
            entries[f"VOCdevkit/{year}/JPEGImages/{name}"] = image(number)
            entries[f"VOCdevkit/{year}/Annotations/{stem}.xml"] = xml(name)
    main = "VOCdevkit/{}/ImageSets/Main/{}.txt"
    entries[main.format("VOC2007", "train")] = b"1\r\n2\r\n"
    entries[main.format("VOC2007", "val")] = b"3\n"
    entries[main.format("VOC2007", "trainval")] = b"1\n2\n3\n"
    entries[main.format("VOC2007", "cat_train")] = b"4 -1\n"
    entries[main.format("VOC2007", "test")] = b"4\n"
    entries[main.format("VOC2012", "trainval")] = b"2\n"
    assert split(tmp_path, entries)[0] == {
        "train": [f"VOC2007/JPEGImages/{n}.jpg" for n in (1, 2)]
        + ["VOC2012/JPEGImages/2.jpg"],
        "validation": ["VOC2007/JPEGImages/3.jpg"],
        "test": ["VOC2007/JPEGImages/4.jpg"],
    }
    with open_data(tmp_path, entries) as data:
        assert data.notes.left_out["images that the data set does not list"] == 3


def voc(lists, xmls, images=None):
    """A VOC data set with lists of the splits, and images as the XMLs if not given."""
    entries = {f"V/ImageSets/Main/{name}.txt": each for name, each in lists.items()}
    entries |= {f"V/Annotations/{x}.xml": xml(f"{x}.jpg") for x in xmls}
    for number, name in enumerate(images or xmls):
        entries[f"V/JPEGImages/{name}.jpg"] = image(number)
    return entries


CAMERAS = ("cam1/1", "cam1/2", "cam2/1", "cam2/2")


@pytest.mark.parametrize(
    "lines",
    [
        (b"cam1/1\ncam1/2\n", b"cam2/1\ncam2/2\n"),  # As CVAT.
        (b"cam1/1.jpg\ncam1/2.jpg\n", b"JPEGImages/cam2/1.jpg\ncam2/2.jpg 1\n"),
    ],
)
def test_voc_lists_with_folders(tmp_path, lines):
    train, validation = lines
    entries = voc({"Train": train, "Validation": validation}, CAMERAS)
    by_split, _ = split(tmp_path, entries)
    assert by_split == {
        "train": ["cam1/1.jpg", "cam1/2.jpg"],
        "validation": [],
        "test": ["cam2/1.jpg", "cam2/2.jpg"],
    }
    # Without a label in one of the folders, that of the other is not it.
    entries = voc({"Train": train, "Validation": validation}, CAMERAS[1:])
    with pytest.raises(InputError, match="1 of 4 labelled images.*Train.txt: cam1/1"):
        split(tmp_path, entries)


def test_names_in_voc_lists(tmp_path):
    names = ("frame 1", "frame 0", "3.5", "4")
    lists = {"train": b"frame 1\n3.5.jpg\n", "test": b"frame 0\n4 -1\n"}
    assert split(tmp_path, voc(lists, names))[0] == {
        "train": ["frame 1.jpg", "3.5.jpg"],
        "validation": [],
        "test": ["frame 0.jpg", "4.jpg"],
    }


def test_voc_lists_of_what_is_not_there(tmp_path):
    lists = {"train": b"1\n2\n3\n", "val": b"4\n5\n"}
    entries = voc(lists, ("1", "2", "4"))
    with pytest.raises(InputError, match=r"2 of 5 labelled.*train.txt: 3, .*txt: 5"):
        split(tmp_path, entries)
    by_split, _ = split(tmp_path, entries, skip_missing=True)
    assert by_split["test"] == ["4.jpg"]
    # An image without an XML has no label.
    with open_data(
        tmp_path, voc(lists, ("1", "2", "4"), ("1", "2", "3", "4", "5"))
    ) as d:
        assert d.notes.left_out == {"images without a label": 2}
    with pytest.raises(InputError, match=r"val.txt: expected images with an XML"):
        split(tmp_path, voc(lists, ("1", "2", "3"), ("1", "2", "3", "4", "5")))
    with pytest.raises(InputError, match="1 image in train and test, e.g. 2;"):
        split(tmp_path, voc({"test": b"2\n", "train": b"1\n2\n"}, ("1", "2")))


def test_voc_folders(tmp_path):
    entries = {}
    for number, folder in enumerate(("train", "train", "valid", "test")):
        entries[f"{folder}/{number}.jpg"] = image(number)
        entries[f"{folder}/{number}.xml"] = xml(f"{number}.jpg")
    by_split, _ = split(tmp_path, entries)
    assert {s: len(found) for s, found in by_split.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }


def test_one_file_with_the_folders_of_splits(tmp_path):
    entries = {"labels.json": coco("train/1.jpg", "val/2.jpg")}
    entries |= {"train/1.jpg": image(0), "val/2.jpg": image(1)}
    assert split(tmp_path, entries)[0] == {
        "train": ["train/1.jpg"],
        "validation": [],
        "test": ["val/2.jpg"],
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", "train"),
        ("Val", "validation"),
        ("valid", "validation"),
        ("validation", "validation"),
        ("test_2007", "test"),
        ("train2017", "train"),
        ("trainval", None),
        ("Training", "train"),
        ("testing", "test"),
        ("dev", "validation"),
        ("trains", None),
        ("2017", None),
        ("", None),
    ],
)
def test_names_of_splits(name, expected):
    assert split_of_name(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("instances_val2017.json", "validation"),
        ("train.json", "train"),
        ("test-annotations.coco.json", "test"),
        ("_annotations.coco.json", None),
        ("trains.json", None),
    ],
)
def test_words_of_files(name, expected):
    assert split_of_words(name) == expected


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-16"),
        lambda text: b"# mine\n" + text.encode(),
        lambda text: text.encode("utf-8-sig"),
    ],
)
def test_lists_as_other_programs_write_them(tmp_path, encode):
    entries = roboflow(("a", "a", "a"))
    entries["train.txt"] = encode("a/images/0.jpg\r\na/images/1.jpg\r\n")
    entries["val.txt"] = encode("a/images/2.jpg\r\n")
    assert [len(found) for found in split(tmp_path, entries)[0].values()] == [2, 0, 1]


def test_voc_lists_with_folders_spaces_and_extensions(tmp_path):
    entries = {}
    for number, name in enumerate(("day/1", "night/1", "2 a", "3")):
        entries[f"JPEGImages/{name}.jpg"] = image(number)
        entries[f"Annotations/{name}.xml"] = xml(f"{name}.jpg")
    entries["ImageSets/Main/train.txt"] = b"day/1\n2 a\n"
    entries["ImageSets/Main/test.txt"] = b"night/1\n3.jpg\n"
    assert split(tmp_path, entries)[0] == {
        "train": ["day/1.jpg", "2 a.jpg"],
        "validation": [],
        "test": ["night/1.jpg", "3.jpg"],
    }
    # The labels of a split are not left out in silence.
    entries["ImageSets/Main/val.txt"] = b"4\n5\n"
    with pytest.raises(InputError, match=r"val\.txt: expected images with an XML"):
        split(tmp_path, entries)


def test_a_damaged_yaml_and_one_that_contradicts_a_list(tmp_path, caplog):
    entries = roboflow(("train", "test")) | {"classes.txt": b"dog\n"}
    open_data(tmp_path, entries).close()
    assert "has other class names than" in caplog.text
    entries["data.yaml"] = b"names: [cat\ntrain: train\n"
    with pytest.raises(InputError, match=r"data\.yaml"):
        open_data(tmp_path, entries)


def test_a_listed_image_is_not_that_of_another_folder(tmp_path):
    # Without its image, `cam1/0.jpg` is not `cam2/0.jpg`.
    for folder in ("cam1", "cam2"):
        entries = {"classes.txt": b"cat"}
        for name in ("cam2/1", "cam2/2", f"{folder}/0"):
            entries[f"images/{name}.jpg"] = image(len(entries))
            entries[f"labels/{name}.txt"] = LINE
        entries["train.txt"] = b"data/cam1/0.jpg\ndata/cam2/1.jpg\n"
        entries["val.txt"] = b"data/cam2/2.jpg\n"
        if folder == "cam1":
            assert len(split(tmp_path, entries)[0]["train"]) == 2
        else:
            with pytest.raises(InputError, match="1 of 4 .* data/cam1/0.jpg"):
                split(tmp_path, entries)
