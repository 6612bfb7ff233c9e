"""detect.py as a user runs it."""

import csv
import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import reference
import suite_export
from PIL import Image
from steps import NAMES, TINY, detect, model_files, on_a_full_disk, refused

from yolov3_tf2.evaluation import coco, draw
from yolov3_tf2.inference import review
from yolov3_tf2.inference.detector import Detector
from yolov3_tf2.network import checkpoint
from yolov3_tf2.network.folding import fold_model
from yolov3_tf2.network.model import build_model
from yolov3_tf2.network.model_info import ModelInfo, write_model_info


def test_detect_images_zips_and_records_together(run_script, outputs, files, tmp_path):
    image = Image.new("RGB", (90, 30), (200, 60, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # Shown turned by a quarter: 30 wide, 90 high.
    image.save(tmp_path / "turned.jpg", exif=exif)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(files / "image.png", "folder/image.png")
        archive.writestr("__MACOSX/folder/._image.png", b"junk")
        archive.writestr("notes.txt", b"not an image")
    process = detect(
        run_script,
        outputs,
        files,
        files / "image.png",
        tmp_path / "turned.jpg",
        tmp_path / "more.zip",
        files / "two.tfrecord",
    )
    assert process.returncode == 0, process.stderr
    result = json.loads((outputs / "detections.json").read_text())
    assert [
        (i["file_name"], i["width"], i["height"], i["output"]) for i in result["images"]
    ] == [
        ("image.png", 64, 48, "output_image.png"),
        ("turned.jpg", 30, 90, "output_turned.jpg"),
        ("folder/image.png", 64, 48, "output_image-2.png"),
        ("ds/0.png", 64, 48, "output_0.png"),
        ("ds/1.png", 64, 48, "output_1.png"),
    ]
    for image in result["images"]:
        with Image.open(outputs / image["output"]) as drawn:
            assert drawn.size == (image["width"], image["height"])
    assert result["annotations"]
    sizes = {i["id"]: (i["width"], i["height"]) for i in result["images"]}
    for annotation in result["annotations"]:
        left, top, width, height = annotation["bbox"]
        limit = sizes[annotation["image_id"]]
        assert left >= 0 and left + width <= limit[0] + 1e-2
        assert top >= 0 and top + height <= limit[1] + 1e-2
    line = json.loads(process.stdout.strip())
    assert line["images"] == 5 and line["images_per_second"] > 0


@pytest.fixture(scope="module")
def unsure(tmp_path_factory):
    """A model that finds boxes of all scores in any image, and images for it."""
    folder = tmp_path_factory.mktemp("unsure")
    keras.utils.set_random_seed(0)
    model = build_model(TINY, len(NAMES))
    chance = np.random.default_rng(0)
    reference.calibrate(model, chance.random((4, 64, 64, 3), "float32"))
    for layer in model.layers:
        if layer.name.startswith("output") and layer.weights:
            layer.kernel.assign(layer.kernel * 20)
    boxes = {"circle": 90, "square": 90, "triangle": 0}
    info = ModelInfo(TINY, NAMES, 64, boxes)
    checkpoint.save_model(folder / "model", model, info)
    (folder / "images").mkdir()
    for number, name in enumerate(("b", "a, 가", "c", "d", "e")):
        noise = chance.integers(0, 255, (6, 9 + 2 * number, 3), "uint8")
        noise = Image.fromarray(noise).resize((80 + 30 * number, 60))
        noise.save(folder / "images" / f"{name}.png")
    return folder


@pytest.mark.parametrize("max_boxes", [100, 3])
def test_the_review_does_not_change_the_detections(
    run_script, outputs, unsure, max_boxes
):
    limits = {"score_threshold": 0.55, "iou_threshold": 0.5, "max_boxes": max_boxes}
    process = run_script(
        "detect.py",
        *("--model", *model_files(unsure / "model"), "--image", unsure / "images"),
        *("--size=64", "--precision=float32"),
        *(f"--{name}={value}" for name, value in limits.items()),
        outputs=outputs,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads((outputs / "detections.json").read_text())
    names = [image["file_name"] for image in found["images"]]

    # A detector that never returns boxes below the threshold.
    model, info = checkpoint.load_model(unsure / "model")
    model = fold_model(model)
    detector = Detector(model, TINY, 64, **limits)
    paths = [unsure / "images" / name for name in names]
    arrays = [np.asarray(Image.open(path)) for path in paths]
    expected = detector([detector.prepare(array) for array in arrays])
    expected = [
        coco.coco_annotations(number, *(part[i] for i in (0, 2, 1)))
        for number, part in enumerate(expected, start=1)
    ]
    assert found["annotations"] == coco.number_annotations(expected)
    assert min(map(len, expected)) and max(map(len, expected)) <= max_boxes

    with (outputs / "review.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["rank", *review.Row._fields]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    numbers = dict(zip(names, map(len, expected), strict=True))
    assert {row["file_name"]: int(row["boxes"]) for row in rows} == numbers
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and scores[-1] > 0
    assert any(float(row["rarity"]) for row in rows)
    first = f"{rows[0]['file_name']} ({rows[0]['reason']})"
    assert f"label these first (see review.csv): {first}; " in process.stderr


def read_boxes(outputs):
    """Returns the boxes and scores of each image by its file name without extension."""
    result = json.loads((outputs / "detections.json").read_text())
    names = {image["id"]: Path(image["file_name"]).stem for image in result["images"]}
    boxes = {name: [] for name in names.values()}
    for found in result["annotations"]:
        row = (found["category_id"], *found["bbox"], found["score"])
        boxes[names[found["image_id"]]].append(row)
    return boxes


def test_detect_scales_16_bit_images_as_training_did(
    run_script, outputs, files, unsure, tmp_path
):
    random = np.random.default_rng(0)
    values = random.integers(7000, 7256, (48, 64), dtype="uint16")
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray((values - 7000).astype("u1")).save(tmp_path / "flat.png")
    shutil.copytree(unsure / "model", tmp_path / "model")
    info = checkpoint.read_model_info(unsure / "model")
    write_model_info(tmp_path / "model", replace(info, gray_range=(7000, 7255)))
    images = [tmp_path / "deep.png", tmp_path / "flat.png"]
    process = detect(run_script, outputs, files, *images, model=tmp_path / "model")
    assert process.returncode == 0, process.stderr
    boxes = read_boxes(outputs)
    assert boxes["deep"] == boxes["flat"] != []
    assert "16-bit values from 7000 to 7255 became 0 to 255" in process.stderr
    # A model without a range: each image has its own, and the log says so.
    process = detect(
        run_script, tmp_path / "own", files, *images, model=unsure / "model"
    )
    assert "it has no range for their values" in process.stderr


def test_detect_sees_what_people_see(run_script, outputs, files, unsure, tmp_path):
    drawing = np.random.default_rng(0).integers(0, 256, (48, 64, 4), dtype="uint8")
    drawing[..., 3] = 255 * (drawing[..., 3] > 99)
    Image.fromarray(drawing).save(tmp_path / "clear.png")
    seen = np.where(drawing[..., 3:] > 0, drawing[..., :3], 255).astype("uint8")
    Image.fromarray(seen).save(tmp_path / "white.png")
    (tmp_path / "noext").write_bytes((tmp_path / "white.png").read_bytes())
    (tmp_path / "page").write_bytes(b"<html>")
    paths = [tmp_path / name for name in ("clear.png", "white.png", "noext", "page")]
    process = detect(run_script, outputs, files, *paths, model=unsure / "model")
    assert process.returncode == 0, process.stderr
    boxes = read_boxes(outputs)
    assert boxes["clear"] == boxes["white"] == boxes["noext"] != []
    assert "changed: 1 images with transparent pixels, drawn on white" in process.stderr
    assert "left out 1 files that are not images: page" in process.stderr
    line = json.loads(process.stdout.strip())
    assert (line["images"], line["images_left_out"], line["other_files"]) == (3, 0, 1)


def test_detect_reads_photographs_of_telephones(run_script, outputs, files, shared):
    cases = shared / "cases"
    process = detect(run_script, outputs, files, cases / "heic", cases / "mix")
    assert process.returncode == 0, process.stderr
    line = json.loads(process.stdout.strip())
    assert (line["images"], line["images_left_out"], line["other_files"]) == (6, 0, 0)


def write_odd_images(folder):
    """Writes images of every odd kind; returns a dict from name to size."""
    folder.mkdir()
    (folder / "sub").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    red = Image.new("RGB", (90, 30), (200, 60, 60))
    red.save(folder / "turned.jpg", exif=exif)
    red.save(folder / "same.png")
    red.save(folder / "sub" / "same.png")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("CMYK", (40, 30), (0, 90, 90, 0)).save(folder / "cmyk.jpg")
    Image.new("L", (40, 30), 99).save(folder / "grey.JPG")
    Image.new("RGBA", (40, 30), (9, 9, 9, 0)).save(folder / "clear.webp")
    Image.new("I;16", (40, 30), 40_000).save(folder / "deep.png")
    frames = [Image.new("P", (50, 20), colour) for colour in (1, 2, 3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    # 50 megapixels.
    Image.new("RGB", (8192, 6144), (60, 90, 200)).save(folder / "huge.jpg")
    # Wider than a JPEG can be.
    Image.new("RGB", (70_000, 20), (60, 90, 200)).save(folder / "wide.tif")
    # With text instead of a number in its EXIF.
    red.save(folder / "text.jpg", exif=suite_export.ODD_EXIF)
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    red.save(folder.parent / name)
    return {
        "turned.jpg": (30, 90),
        "same.png": (90, 30),
        "sub/same.png": (90, 30),
        "dot.png": (1, 1),
        "cmyk.jpg": (40, 30),
        "grey.JPG": (40, 30),
        "clear.webp": (40, 30),
        "deep.png": (40, 30),
        "moving.gif": (50, 20),
        "huge.jpg": (8192, 6144),
        "wide.tif": (70_000, 20),
        "text.jpg": (30, 90),
    }


def test_detect_reads_odd_images_and_skips_unreadable_ones(
    run_script, outputs, files, tmp_path
):
    sizes = write_odd_images(tmp_path / "odd")
    for name, content in (
        ("empty.jpg", b""),
        ("broken.jpg", b"\xff\xd8\xff not an image"),
        ("cut.png", (files / "image.png").read_bytes()[:60]),
        ("notes.txt", b"not an image"),
    ):
        (tmp_path / "odd" / name).write_bytes(content)
    odd_name = tmp_path / b"caf\xe9.png".decode("utf-8", "surrogateescape")
    process = detect(run_script, outputs, files, tmp_path / "odd", odd_name)
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    result = json.loads((outputs / "detections.json").read_text())
    assert result["images"].pop()["file_name"] == "caf?.png"
    read = {i["file_name"]: (i["width"], i["height"]) for i in result["images"]}
    assert read == sizes
    assert len({i["output"] for i in result["images"]}) == len(sizes)
    for image in result["images"]:
        assert image["source"] == f"{tmp_path / 'odd'}: {image['file_name']}"
        with Image.open(outputs / image["output"]) as drawn:
            assert drawn.size == (image["width"], image["height"])
    left_out = {row["file_name"]: row["reason"] for row in result["info"]["left_out"]}
    assert set(left_out) == {"empty.jpg", "broken.jpg", "cut.png"}
    for name, reason in left_out.items():
        assert f"{tmp_path / 'odd'}: {name}: expected an image, got" in reason
        assert f"WARNING: skipped: {reason}" in process.stderr.splitlines()
    assert "left out 1 files that are not images: notes.txt" in process.stderr
    assert "skipped 3 of 16 images that could not be read" in process.stderr
    line = json.loads(process.stdout.strip())
    assert (line["images"], line["images_left_out"]) == (13, 3)


@pytest.mark.slow
def test_detect_processes_10_000_images_in_constant_memory(
    run_script, outputs, files, tmp_path
):
    # Python runs this before a script: it writes how much memory the script used.
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, pathlib\n"
        "status, peak = map(pathlib.Path, ('/proc/self/status', __file__ + '.peak'))\n"
        "atexit.register(lambda: peak.write_text(status.read_text()))\n"
    )
    encoded = (files / "image.png").read_bytes()
    peaks = []
    for total in (1000, 10_000):
        folder = tmp_path / f"{total}"
        folder.mkdir()
        for number in range(total):
            is_bad = number in (17, 500, 999)
            (folder / f"{number}.png").write_bytes(b"bad" if is_bad else encoded)
        process = run_script(
            "detect.py",
            *("--model", *model_files(files / "model"), "--image", folder),
            *("--size=64", "--batch_size=64", "--max_unreadable=3"),
            *("--score_threshold=0", "--max_boxes=5"),
            outputs=outputs / f"{total}",
            PYTHONPATH=str(tmp_path),
        )
        assert process.returncode == 0, process.stderr
        line = json.loads(process.stdout.strip())
        assert (line["images"], line["images_left_out"]) == (total - 3, 3)
        assert line["objects"] == 5 * (total - 3)
        assert len(list((outputs / f"{total}").glob("output_*.png"))) == total - 3
        status = (tmp_path / "sitecustomize.py.peak").read_text()
        peaks.append(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]))
    # The name of each image and its line of review.csv; its boxes would double that.
    assert peaks[1] - peaks[0] < 3 * 9000, peaks


def test_output_names():
    name_output = draw.output_names()
    names = [name_output(f"{n % 2}/a.jpg", (9, 9)) for n in range(2000)]
    assert names[:3] == ["output_a.jpg", "output_a-2.jpg", "output_a-3.jpg"]
    assert len(set(names)) == 2000
    assert name_output("a.JPEG", (70_000, 9)) == "output_a.png"
    assert name_output("A.png", (9, 9)) == "output_A-2.png"


def test_detect_fails_if_no_image_can_be_read(run_script, outputs, files, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff not an image")
    process = detect(run_script, outputs, files, tmp_path / "broken.jpg")
    refused(process, outputs, "none of 1 images could be read")
    assert "broken.jpg: expected an image" in process.stderr


def test_detect_on_a_full_disk(outputs, files, tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg")
    inputs = ["--model", *model_files(files / "model"), "--size=64"]
    inputs += ["--image", tmp_path / "a.jpg"]
    for size, name in ((50, "detections.json"), (400, "output_a.jpg")):
        error = on_a_full_disk("detect.py", outputs, size, *inputs)
        assert f": {name} cannot be written" in error
        assert not outputs.exists()


def test_detect_refuses_classes_of_another_model(run_script, outputs, files, tmp_path):
    (tmp_path / "other.txt").write_text("cat\ndog\n")
    process = detect(
        run_script,
        outputs,
        files,
        files / "image.png",
        classes=tmp_path / "other.txt",
    )
    refused(process, outputs, "other.txt names 2 classes", "model.json", "3")


def test_detect_refuses_a_checkpoint_of_another_class_count(
    run_script, outputs, files, tmp_path
):
    folder = shutil.copytree(files / "model", tmp_path / "model")
    info = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(info | {"classes": ["a", "b"]}))
    process = detect(run_script, outputs, files, files / "image.png", model=folder)
    refused(process, outputs, "another variant or class count")


def test_detect_refuses_a_zip_without_images(run_script, outputs, files, tmp_path):
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("notes.txt", b"not an image")
        archive.writestr("cam.zip", b"PK")
    process = detect(run_script, outputs, files, tmp_path / "none.zip")
    refused(process, outputs, "no images in", "none.zip, but the zip cam.zip; unpack")
