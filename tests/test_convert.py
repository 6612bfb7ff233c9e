"""convert_superbai.py as a user runs it."""

import json
import shutil
import time
import zipfile

import pytest
import suite_export
import tensorflow as tf
from PIL import Image
from steps import NAMES, convert, on_a_full_disk, refused, start
from suite_export import box, labelled, polygon, rotated

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
    refused(process, outputs, "images.zip", "no project.json", "swapped?")


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
    reason = "images that cannot be read, or whose label cannot"
    assert line[f"left out: {reason}"] == 1
    assert f"left out: 1 {reason}" in process.stderr


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
    assert "left out: 1 images with status SKIPPED" in process.stderr


def test_convert_reports_boxes_far_outside(run_script, outputs, tmp_path):
    items = [
        labelled("a.jpg", box(9, 9, 20, 20), tags=["train"]),
        labelled("b.jpg", box(30, 20, 60, 20), tags=["test"]),
    ]
    images, labels = suite_export.build(items)
    process = convert(
        run_script,
        outputs,
        suite_export.write_zip(tmp_path / "images.zip", images),
        suite_export.write_zip(tmp_path / "labels.zip", labels),
    )
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
    assert ".tfrecord" in on_a_full_disk("convert_superbai.py", outputs, 4096, *inputs)
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
    names = sorted(path.name for path in outputs.iterdir())
    assert names == ["classes.txt", "preview.jpg", "test", "train"]
    assert (
        records.count_records(outputs / "train" / "train-00000-of-00001.tfrecord")
        == 3000
    )
