"""convert_superbai.py as a user runs it."""

import json
import re
import shutil
import time
import zipfile

import numpy as np
import pytest
import suite_export
import tensorflow as tf
import valohai_yaml
from PIL import Image
from project import REPOSITORY
from steps import NAMES, convert, on_a_full_disk, refused, start
from suite_export import box, encode, labelled, polygon, rotated

from valohai_step.local import sample
from yolov3_tf2.data import records


def test_convert(run_script, outputs, files):
    process = convert(run_script, outputs, files / "images.zip", files / "labels.zip")
    assert process.returncode == 0, process.stderr
    line = json.loads(process.stdout.strip())
    assert (line["images_train"], line["images_test"]) == (4, 2)
    assert "split by the tags of the images" in process.stderr
    assert (outputs / "classes.txt").read_text().splitlines() == NAMES
    assert (
        records.count_records(outputs / "train" / "train-00000-of-00001.tfrecord") == 4
    )
    with Image.open(outputs / "preview.jpg") as preview:
        assert preview.size == (960, 640)
    # The images' bytes are those of the zip.
    (path,) = (outputs / "test").iterdir()
    with zipfile.ZipFile(files / "images.zip") as archive:
        stored = {archive.read(name) for name in archive.namelist()}
    for serialized in tf.data.TFRecordDataset(str(path)):
        assert records.parse_example(serialized)["encoded"].numpy() in stored


def write_export(folder, *items, classes=suite_export.CLASSES):
    """Writes the zips of `suite_export.labelled` items; returns both."""
    images, labels = suite_export.build(items, classes=classes)
    return (
        suite_export.write_zip(folder / "images.zip", images),
        suite_export.write_zip(folder / "labels.zip", labels),
    )


def coloured(number, key, *things, **options):
    """A labelled image that equals no other."""
    encoded = suite_export.encoded_image((number, 0, 0), "PNG")
    return labelled(key, *things, encoded=encoded, **options)


def test_three_splits(run_script, outputs, tmp_path):
    tags = ["train"] * 12 + ["validation", "val", "valid", "test"]
    boxes = (box(9, 9, 20, 20), box(9, 20, 16, 8, "person"))
    items = (
        coloured(number, f"{number}.jpg", *boxes, tags=[tag])
        for number, tag in enumerate(tags)
    )
    process = convert(
        run_script,
        outputs,
        *write_export(tmp_path, *items),
        "--images_per_shard=2",
    )
    assert process.returncode == 0, process.stderr
    assert "WARNING" not in process.stderr
    line = json.loads(process.stdout.strip())
    for split, number in (("train", 12), ("validation", 3), ("test", 1)):
        assert line[f"images_{split}"] == line[f"{split}/car"] == number
        assert line[f"boxes_{split}"] == 2 * number
    table = process.stderr[process.stderr.index("   train") :].splitlines()
    assert [row.split() for row in table[:4]] == [
        ["train", "validation", "test"],
        ["images", "12", "3", "1"],
        ["boxes", "24", "6", "2"],
        ["car", "12", "3", "1"],
    ]
    names = sorted(path.name for path in (outputs / "validation").iterdir())
    assert names == [f"validation-0000{n}-of-00002.tfrecord" for n in range(2)]
    paths = [outputs / "validation" / name for name in names]
    rows = records.read_examples(paths, range(3))
    assert [int(row["source_id"].numpy()[3:5]) for row in rows] == [12, 13, 14]
    data = json.loads((outputs / "data.json").read_text())
    assert list(data) == ["train", "validation", "test"]
    assert data["validation"]["boxes"] == {"car": 3, "person": 3}
    # The larger box is 20 pixels wide and high, in images of 64x48.
    assert data["train"]["max_boxes"] == 2
    assert data["train"]["box_sides"]["95"] == 20 / 64


def test_a_split_without_images_is_an_empty_file(run_script, outputs, files):
    for _ in range(2):  # The second run replaces what the first one wrote.
        folder = outputs / "validation"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "validation-00001-of-00002.tfrecord").write_bytes(b"of another run")
        process = convert(
            run_script, outputs, files / "images.zip", files / "labels.zip"
        )
        assert process.returncode == 0, process.stderr
        (path,) = folder.iterdir()
        assert path.name == "validation-00000-of-00001.tfrecord"
        assert path.stat().st_size == records.count_records(path) == 0


def test_convert_reports_problems_of_the_data(run_script, outputs, tmp_path):
    same = suite_export.encoded_image((1, 2, 3), "PNG", (1920, 1080))
    items = [
        *(
            labelled(f"{n}.png", box(9 + n, 9, 8, 8), tags=["train"], encoded=same)
            for n in range(10)
        ),
        labelled("t.png", tags=["test"], encoded=same),
    ]
    export = write_export(tmp_path, *items, classes=[("car", "box")])
    process = convert(run_script, outputs, *export)
    assert process.returncode == 0, process.stderr
    warnings = [x for x in process.stderr.splitlines() if x.startswith("WARNING: ")]
    assert warnings == [
        "WARNING: 100% of the training boxes are under 4 pixels at size 416, the "
        "default of train (median 1.7): the network hardly finds them; train with size "
        "1920, or cut the images into tiles of 1/5 of their longer side",
        "WARNING: no test image has a box: AP cannot be measured on them; put images "
        "with objects into the split test",
        "WARNING: 1 of 1 test images are also training images, byte for byte (such as "
        "ds/0.png and ds/t.png): AP will be too high; remove the copies, or put them "
        "into the same split",
    ]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("far", "under 4 pixels at size 416, the default of train (median 1.7)"),
        ("negtest", "no test image has a box: AP cannot be measured on them; put"),
    ],
)
def test_problems_of_real_cases(run_script, outputs, shared, case, words):
    folder = shared / "cases" / case
    if not folder.is_dir():
        pytest.skip(f"the case is not here: no folder {folder}")
    process = convert(run_script, outputs, folder / "images.zip", folder / "labels.zip")
    assert process.returncode == 0 and words in process.stderr


def test_the_size_that_convert_assumes_is_the_default_of_train():
    text = (REPOSITORY / "convert_superbai.py").read_text()
    config = valohai_yaml.parse((REPOSITORY / "valohai.yaml").read_text())
    default = config.steps["train"].parameters["size"].default
    assert f"TRAIN_SIZE = {default} " in text


def test_groups_of_images(run_script, outputs, tmp_path):
    names = [f"video{n // 6}_{n % 6}.jpg" for n in range(60)]
    items = [
        coloured(
            *(number, name, box(9, 9, 20, 20)),
            *[box(9, 20, 16, 8, "person")] * (number // 6 in (1, 7)),
        )
        for number, name in enumerate(names)
    ]
    export = write_export(tmp_path, *items)
    process = convert(run_script, outputs, *export, "--group_by=/(.*)_")
    assert process.returncode == 0, process.stderr
    assert "of 10 groups (group_by /(.*)_) are for testing, with 2" in process.stderr
    videos = {}
    for split in ("train", "test"):
        (path,) = (outputs / split).iterdir()
        rows = records.read_examples([path], range(records.count_records(path)))
        videos[split] = {row["source_id"].numpy()[:9] for row in rows}
    assert not videos["train"] & videos["test"] and len(videos["test"]) == 2
    # Of the two videos with a person, one is for testing.
    line = json.loads(process.stdout.strip())
    assert line["train/person"] == line["test/person"] == 6


@pytest.mark.parametrize(
    ("group_by", "words"),
    [
        ("(", "or a regular expression, got '('"),
        ("camera", "got 6 of 6 that it does not match, such as shapes/0000.jpg"),
        ("folder", "all 6 images are in one group, 'shapes/'"),
    ],
)
def test_groups_that_do_not_fit_are_refused(
    run_script, outputs, files, tmp_path, without_tensorflow, group_by, words
):
    with zipfile.ZipFile(files / "labels.zip") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for name in [name for name in entries if name.startswith("meta/")]:
        entries[name] = {**json.loads(entries[name]), "tags": []}
    labels = suite_export.write_zip(tmp_path / "untagged.zip", entries)
    process = convert(
        *(run_script, outputs, files / "images.zip", labels),
        f"--group_by={group_by}",
        **without_tensorflow,
    )
    refused(process, outputs, "--group_by", words)


def test_convert_says_what_it_changes_and_leaves_out(run_script, outputs, tmp_path):
    values = np.random.default_rng(0).integers(7000, 7300, (48, 64), dtype="uint16")
    deep = encode(Image.fromarray(values), "PNG")
    clear = encode(Image.new("RGBA", (64, 48), (200, 30, 40, 0)), "PNG")
    items = [
        labelled("deep.png", box(1, 1, 9, 9), encoded=deep),
        labelled("clear.png", box(1, 1, 9, 9), encoded=clear, tags=["test"]),
    ]
    images, labels = suite_export.build(items)
    images |= {"more/spare": suite_export.encoded_image(), "notes.txt": b"text"}
    process = convert(
        run_script,
        outputs,
        suite_export.write_zip(tmp_path / "images.zip", images),
        suite_export.write_zip(tmp_path / "labels.zip", labels),
    )
    assert process.returncode == 0, process.stderr
    for line in (
        "changed: 1 image of 16 bits per channel, scaled to 8",
        "changed: 1 image with transparent pixels, drawn on white",
        "16-bit values from 7000 to 7299 became 0 to 255",
        "left out: 1 image without a label (more/spare)",
        "left out: 1 file other than images (notes.txt)",
    ):
        assert line in process.stderr.splitlines(), process.stderr
    metadata = json.loads(process.stdout.strip())
    assert (metadata["gray_black"], metadata["gray_white"]) == (7000, 7299)
    deep, white = (
        tf.io.decode_image(records.parse_example(row)["encoded"], 3).numpy()
        for split in ("train", "test")
        for row in tf.data.TFRecordDataset(list(map(str, (outputs / split).iterdir())))
    )
    assert (deep.min(), deep.max()) == (0, 255) and deep.std() > 70
    assert (white == 255).all()


def test_convert_refuses_a_file_that_is_not_a_zip(
    run_script, outputs, files, tmp_path, without_tensorflow
):
    page = tmp_path / "page.zip"
    page.write_text("<!DOCTYPE html><html>expired</html>")
    process = convert(
        run_script, outputs, files / "images.zip", page, **without_tensorflow
    )
    refused(process, outputs, str(page), "is not a zip archive", "<!DOCTYPE")


def test_convert_refuses_swapped_zips(run_script, outputs, files):
    process = convert(run_script, outputs, files / "labels.zip", files / "images.zip")
    refused(process, outputs, "images.zip", "none of these formats", "swapped?")


def test_convert_refuses_a_missing_image(run_script, outputs, files, tmp_path):
    fewer = tmp_path / "fewer.zip"
    with (
        zipfile.ZipFile(files / "images.zip") as archive,
        zipfile.ZipFile(fewer, "w") as copy,
    ):
        for name in archive.namelist()[1:]:
            copy.writestr(name, archive.read(name))
    process = convert(run_script, outputs, fewer, files / "labels.zip")
    refused(process, outputs, str(fewer), "1 of 6 labelled", "shapes/0000.jpg")


def test_convert_does_not_take_the_images_of_another_dataset(
    run_script, outputs, tmp_path, without_tensorflow
):
    items = [suite_export.labelled("a.jpg", dataset=name) for name in ("cam1", "cam2")]
    images, labels = suite_export.build(items)
    del images["cam1/a.jpg.jpg"]
    images = suite_export.write_zip(tmp_path / "images.zip", images)
    labels = suite_export.write_zip(tmp_path / "labels.zip", labels)
    process = convert(run_script, outputs, images, labels, **without_tensorflow)
    refused(process, outputs, "1 of 2 labelled images are not in", "e.g. cam1/a.jpg")
    options = ("--find_images_by=key",)
    process = convert(
        run_script, outputs, images, labels, *options, **without_tensorflow
    )
    refused(process, outputs, "images.zip: cam2/a.jpg.jpg is the image of both cam1/")


def test_convert_leaves_nothing_of_an_image_that_cannot_be_read(
    run_script, outputs, files, tmp_path
):
    bad = tmp_path / "bad.zip"
    with (
        zipfile.ZipFile(files / "images.zip") as archive,
        zipfile.ZipFile(bad, "w") as copy,
    ):
        for name in archive.namelist():
            data = archive.read(name)
            copy.writestr(name, data[: len(data) // 2] if "0003" in name else data)
    process = convert(run_script, outputs, bad, files / "labels.zip")
    refused(process, outputs, str(bad), "0003.jpg.jpg", "is it incomplete")


@pytest.mark.parametrize("place", [0, 5])
def test_a_damaged_jpeg_is_found_wherever_it_stands(
    run_script, outputs, tmp_path, place
):
    keys = [f"{number}.jpg" for number in range(40)]
    items = [labelled(key, box(9, 9, 20, 20), tags=["train"]) for key in keys[:36]]
    items += [labelled(key, box(9, 9, 20, 20), tags=["test"]) for key in keys[36:]]
    images, labels = suite_export.build(items)
    name = f"ds/{place}.jpg.jpg"
    # Its header is right: a marker that nobody knows is between the pixels.
    images[name] = images[name][:-20] + b"\xff\x44" + images[name][-18:]
    paths = (
        suite_export.write_zip(tmp_path / "images.zip", images),
        suite_export.write_zip(tmp_path / "labels.zip", labels),
    )
    process = convert(run_script, outputs, *paths)
    refused(process, outputs, "1 of 40 labelled images", f": ds/{place}.jpg (")
    process = convert(run_script, outputs, *paths, "--max_unreadable=1")
    assert process.returncode == 0, process.stderr
    assert f"WARNING: left out, cannot be used: ds/{place}.jpg (" in process.stderr
    line = json.loads(process.stdout.strip())
    assert line["images_train"] == 35 and line["boxes_train"] == 35
    reason = "images with an unreadable file or label"
    assert line[f"left out: {reason}"] == 1
    assert "left out: 1 image with an unreadable file or label" in process.stderr


def test_convert_refuses_a_split_of_unreadable_images(run_script, outputs, tmp_path):
    items = [labelled(f"{n}.jpg", box(9, 9, 20, 20), tags=["train"]) for n in range(3)]
    items.append(labelled("t.jpg", encoded=b"no image", tags=["test"]))
    images, labels = suite_export.build(items)
    process = convert(
        run_script,
        outputs,
        suite_export.write_zip(tmp_path / "images.zip", images),
        suite_export.write_zip(tmp_path / "labels.zip", labels),
        "--max_unreadable=9",
    )
    refused(process, outputs, "no images left for test: of its 1, 1 cannot be read")


def test_convert_takes_folders_and_options(run_script, outputs, tmp_path):
    items = [
        labelled("a.jpg", polygon(), box(9, 9, 20, 20), tags=["train"]),
        labelled("b.jpg", rotated(30, 20, 9, 5, 45), tags=["test"], status="WORKING"),
        labelled("c.jpg", tags=["test"], status="WORKING"),
        labelled("d.jpg", tags=["test"], status="SKIPPED"),
        labelled("e.jpg", tags=["test"]),
    ]
    classes = [("car", "box"), ("road", "polygon"), ("car", "rbox")]
    images, labels = suite_export.build(items, classes=classes)
    del images["ds/e.jpg.jpg"]
    for name, entries in (("images", images), ("labels", labels)):
        archive = suite_export.write_zip(tmp_path / "a.zip", entries)
        with zipfile.ZipFile(archive) as archive:
            archive.extractall(tmp_path / name)
    options = ("--polygons=box", "--include_unsubmitted", "--skip_missing=true")
    process = convert(
        run_script, outputs, tmp_path / "images", tmp_path / "labels", *options
    )
    assert process.returncode == 0, process.stderr
    line = json.loads(process.stdout.strip())
    expected = {
        "images_train": 1,
        "images_test": 1,
        "boxes_train": 2,
        "boxes_test": 1,
        "train/car": 1,
        "train/road": 1,
        "test/car": 1,
        "test/road": 0,
        "left out: images with status SKIPPED": 1,
        "left out: labelled images that are missing": 1,
        "left out: images not submitted and without any object": 1,
        "changed: boxes drawn around polygons and rotated boxes": 2,
        "assumed: class name 'car' of several annotation types: treated as one "
        "class": 1,
    }
    assert {name: line.get(name) for name in expected} == expected
    assert "left out: 1 image with status SKIPPED" in process.stderr


def test_convert_reports_boxes_far_outside(run_script, outputs, tmp_path):
    items = [
        labelled("a.jpg", box(9, 9, 20, 20), tags=["train"]),
        labelled("b.jpg", box(30, 20, 60, 20), tags=["test"]),
    ]
    process = convert(run_script, outputs, *write_export(tmp_path, *items))
    assert process.returncode == 0, process.stderr
    assert "1 of 2 boxes reach far over the edge of their image" in process.stderr


def test_convert_refuses_a_project_of_polygons_and_names_the_parameter(
    run_script, outputs, files, tmp_path, without_tensorflow
):
    images, labels = suite_export.build([], classes=[("road", "polygon")])
    labels = suite_export.write_zip(tmp_path / "labels.zip", labels)
    process = convert(
        run_script, outputs, files / "images.zip", labels, **without_tensorflow
    )
    refused(process, outputs, "labels.zip: project.json", "polygon 1", "--polygons=box")


def test_convert_on_a_full_disk(outputs, files):
    inputs = ["--images", files / "images.zip", "--labels", files / "labels.zip"]
    error = on_a_full_disk("convert_superbai.py", outputs, 4096, *inputs)
    assert re.search(r": (train|test)/\w+-00000-of-00001\.tfrecord cannot be", error)
    assert not outputs.exists()


def test_convert_keeps_folders_that_it_did_not_make(run_script, outputs, tmp_path):
    outputs.mkdir()
    (tmp_path / "page.zip").write_text("<!DOCTYPE html><html>expired</html>")
    page = tmp_path / "page.zip"
    assert convert(run_script, outputs, page, page).returncode == 1
    assert outputs.is_dir()


def test_convert_takes_names_that_look_like_patterns(
    run_script, outputs, files, tmp_path
):
    shutil.copy(files / "images.zip", tmp_path / "images[1].zip")
    shutil.copy(files / "labels.zip", tmp_path / "labels*.zip")
    process = convert(
        run_script, outputs, tmp_path / "images[1].zip", tmp_path / "labels*.zip"
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.slow
def test_convert_starts_again_after_it_was_killed(run_script, outputs, tmp_path):
    sample.write_export(tmp_path, num_train=3000, num_test=20)
    arguments = [
        "--images",
        tmp_path / "images.zip",
        "--labels",
        tmp_path / "labels.zip",
    ]
    process = start("convert_superbai.py", outputs, *arguments)
    while not list(outputs.glob(".partial-*/train/*.tfrecord")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    (partial,) = outputs.iterdir()
    assert partial.name.startswith(".partial-")
    # No step uses incomplete outputs.
    (tmp_path / "classes.txt").write_text("circle\n")
    inputs = ["--classes", tmp_path / "classes.txt", "--train", outputs / "train/*"]
    missing = run_script("train.py", *inputs, outputs=outputs)
    assert missing.returncode == 1 and "does not exist" in missing.stderr

    process = run_script("convert_superbai.py", *arguments, outputs=outputs)
    assert process.returncode == 0, process.stderr
    assert sorted(path.name for path in outputs.iterdir()) == [
        *("classes.txt", "data.json", "preview.jpg", "test", "train", "validation")
    ]
    assert (
        records.count_records(outputs / "train" / "train-00000-of-00001.tfrecord")
        == 3000
    )


def test_a_yolo_data_set(run_script, outputs, tmp_path):
    """With its images in it, and a label file that cannot be read."""
    entries = {"data.yaml": b"names: [cat, dog]\nnc: 2\n"}
    for number in range(6):
        split = ("train", "train", "train", "train", "valid", "test")[number]
        entries[f"{split}/images/{number}.png"] = suite_export.encoded_image(
            (number, 0, 0), "PNG"
        )
        entries[f"{split}/labels/{number}.txt"] = b"1 .5 .5 .25 .25\n"
    entries["train/labels/0.txt"] = b"2 .5 .5 .25 .25\n"
    del entries["train/labels/1.txt"]
    path = suite_export.write_zip(tmp_path / "data.zip", entries)
    arguments = ("convert_superbai.py", "--labels", path)
    refused(
        run_script(*arguments, outputs=outputs),
        outputs,
        "1 of 6 labelled images cannot be used",
        "train/labels/0.txt: line 1: expected the index of a class, 0 to 1, got 2",
        "--max_unreadable=1",
    )
    process = run_script(*arguments, "--max_unreadable=1", outputs=outputs)
    assert process.returncode == 0, process.stderr
    assert "data.zip: YOLO, 5 label files, 5 images, 4 objects, 2" in process.stderr
    assert "the splits are those of the data set, by its folders" in process.stderr
    assert "assumed: 1 image without a label file" in process.stderr
    line = json.loads(process.stdout.strip())
    assert (line["images_train"], line["images_validation"]) == (3, 1)
    assert (line["boxes_train"], line["test/dog"]) == (2, 1)
    assert (outputs / "classes.txt").read_text().splitlines() == ["cat", "dog"]
