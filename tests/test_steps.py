"""The step scripts as processes: what they say to bad input, and what they leave."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import samples
from yolov3_tf2 import checkpoint, darknet, grid, records
from yolov3_tf2.model import build_model

TINY = grid.VARIANTS["yolov3-tiny"]
NAMES = ["circle", "square", "triangle"]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Small whole inputs of every step."""
    folder = tmp_path_factory.mktemp("files")
    samples.write_export(folder, num_train=4, num_test=2)
    (folder / "classes.txt").write_text("\n".join(NAMES) + "\n")
    model = build_model(TINY, len(NAMES))
    darknet.write_weights(folder / "tiny.weights", model)
    checkpoint.save_model(folder / "model", model, NAMES, 64)
    image = Image.new("RGB", (64, 48), (9, 9, 200))
    image.save(folder / "picture.png")
    with tf.io.TFRecordWriter(str(folder / "two.tfrecord")) as writer:
        for number in range(2):
            record = records.Record(
                f"ds/{number}.png",
                (folder / "picture.png").read_bytes(),
                "png",
                64,
                48,
                [(5, 5, 30, 30)],
                [number],
            )
            writer.write(records.serialize(record, NAMES))
    return folder


def model_files(folder):
    return [folder / name for name in checkpoint.FILES]


def refused(process, outputs, *words):
    """Checks that a step ended with one clear message and left nothing behind."""
    assert process.returncode == 1, process.stdout + process.stderr
    lines = [line for line in process.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, process.stderr
    assert "Traceback" not in process.stderr
    for word in words:
        assert word in errors[0]
    left = [p for p in outputs.rglob("*")] if outputs.exists() else []
    assert left == []


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


# --- What is refused before TensorFlow is imported ---


@pytest.mark.parametrize(
    "script, arguments, words",
    [
        ("train.py", ["--epochs=0"], ["--epochs", "from 1 to 10000", "got 0"]),
        ("train.py", ["--learning_rate=nan"], ["--learning_rate", "got nan"]),
        ("train.py", ["--size=100"], ["multiple of 32", "got 100", "96 and 128"]),
        ("train.py", ["--size=320-600"], ["multiple of 32", "got 600"]),
        ("train.py", ["--size=608-320"], ["the smaller end first", "got 608-320"]),
        ("train.py", ["--size=large"], ["a range such as 320-608", "got 'large'"]),
        ("train.py", ["--size=0-64"], ["32 to 4096", "got 0"]),
        ("train.py", ["--transfer=all"], ["darknet, no_output, heads, none", "'all'"]),
        ("train.py", ["--epoch=3"], ["no parameter or input 'epoch'", "--epochs"]),
        ("detect.py", ["photo.jpg"], ["option before it, as in", "photo.jpg"]),
        ("train.py", ["--epochs", "3", "4"], ["4: expected an option before it"]),
        ("detect.py", ["--iou_threshold=1.5"], ["from 0 to 1", "got 1.5"]),
        ("detect.py", ["--score_threshold=-1"], ["from 0 to 1", "got -1"]),
        ("weights.py", ["--model=yolov4"], ["yolov3-tiny", "'yolov4'"]),
        ("convert_superbai.py", ["--test_fraction=1"], ["from 0.01 to 0.9", "got 1"]),
    ],
)
def test_parameters(run_script, outputs, script, arguments, words):
    refused(run_script(script, *arguments, outputs=outputs), outputs, *words)


@pytest.mark.parametrize(
    "script, name, words",
    [
        ("convert_superbai.py", "images", ["Give it with --images FILE."]),
        (
            "train.py",
            "classes",
            ["python convert_superbai.py --images FILE --labels FILE"],
        ),
        ("detect.py", "model", ["python train.py."]),
    ],
)
def test_missing_inputs_name_the_command_that_makes_them(
    run_script, outputs, tmp_path, script, name, words
):
    # Run where there are no local outputs.
    shutil.copytree(
        samples.step.Path(samples.__file__).parent,
        tmp_path / "empty",
        ignore=shutil.ignore_patterns(".*", "tests", "__pycache__"),
    )
    process = run_script(script, outputs=outputs, cwd=tmp_path / "empty")
    refused(process, outputs, f"input '{name}' is missing", *words)


@pytest.mark.parametrize(
    "script, arguments",
    [
        ("convert_superbai.py", ["--images", "nowhere.zip", "--labels", "no.zip"]),
        ("weights.py", ["--weights", "nowhere.weights"]),
        ("train.py", ["--classes=nowhere.txt"]),
        ("detect.py", ["--model", "nowhere/model.json"]),
        ("detect.py", ["--model", "README.md", "nowhere/model.json"]),
        ("detect.py", ["--model", "README.md", "nowhere/*"]),
    ],
)
def test_files_that_do_not_exist(run_script, outputs, script, arguments):
    process = run_script(script, *arguments, outputs=outputs)
    name = arguments[0].partition("=")[0].removeprefix("--")
    refused(process, outputs, f"input '{name}'", "nowhere", "does not exist")


# --- convert-superbai ----------------------------------------------------------------


def convert(run_script, outputs, images, labels):
    return run_script(
        "convert_superbai.py", "--images", images, "--labels", labels, outputs=outputs
    )


def test_convert(run_script, outputs, files):
    process = convert(run_script, outputs, files / "images.zip", files / "labels.zip")
    assert process.returncode == 0, process.stderr
    line = json.loads(process.stdout.strip())
    assert (line["pictures_train"], line["pictures_test"]) == (4, 2)
    assert "split by the tags of the pictures" in process.stderr
    assert (outputs / "classes.txt").read_text().splitlines() == NAMES
    assert records.count(outputs / "train" / "train-00000-of-00001.tfrecord") == 4
    with Image.open(outputs / "preview.jpg") as preview:
        assert preview.size == (960, 640)
    # The pictures' bytes are those of the zip.
    (path,) = (outputs / "test").iterdir()
    with zipfile.ZipFile(files / "images.zip") as archive:
        stored = {archive.read(name) for name in archive.namelist()}
    for serialized in tf.data.TFRecordDataset(str(path)):
        assert records.parse(serialized)["encoded"].numpy() in stored


def test_convert_refuses_what_is_no_zip(run_script, outputs, files, tmp_path):
    page = tmp_path / "page.zip"
    page.write_text("<!DOCTYPE html><html>expired</html>")
    process = convert(run_script, outputs, files / "images.zip", page)
    refused(process, outputs, str(page), "is not a zip archive", "<!DOCTYPE")


def test_convert_refuses_swapped_zips(run_script, outputs, files):
    process = convert(run_script, outputs, files / "labels.zip", files / "images.zip")
    refused(process, outputs, "images.zip", "no project.json", "swapped?")


def test_convert_refuses_a_missing_picture(run_script, outputs, files, tmp_path):
    fewer = tmp_path / "fewer.zip"
    with (
        zipfile.ZipFile(files / "images.zip") as archive,
        zipfile.ZipFile(fewer, "w") as copy,
    ):
        for name in archive.namelist()[1:]:
            copy.writestr(name, archive.read(name))
    process = convert(run_script, outputs, fewer, files / "labels.zip")
    refused(process, outputs, str(fewer), "1 of 6 labelled", "shapes/0000.jpg")


def test_convert_leaves_nothing_of_a_picture_that_cannot_be_read(
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
    refused(process, outputs, str(bad), "0003.jpg.jpg", "is it cut off")


# --- weights ---


def weights(run_script, outputs, path, *arguments, classes=3):
    return run_script(
        "weights.py",
        *("--weights", path, "--model=yolov3-tiny", f"--weights_num_classes={classes}"),
        *arguments,
        outputs=outputs,
    )


def test_weights(run_script, outputs, files):
    process = weights(
        run_script,
        outputs,
        files / "tiny.weights",
        *("--classes", files / "classes.txt", "--image", files / "picture.png"),
    )
    assert process.returncode == 0, process.stderr
    loaded, info = checkpoint.load_model(outputs / "model")
    assert info == (TINY, NAMES, 416)
    assert "picture.png: 0 objects of a score over 0.25" in process.stderr
    original, _ = checkpoint.load_model(files / "model")
    for ours, theirs in zip(loaded.variables, original.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_refuses_a_truncated_file(run_script, outputs, files, tmp_path):
    short = tmp_path / "short.weights"
    short.write_bytes((files / "tiny.weights").read_bytes()[:-1000])
    process = weights(run_script, outputs, short)
    refused(process, outputs, str(short), "expected 8,680,864 weights", "cut off")


def test_weights_names_the_class_count_that_fits(run_script, outputs, files):
    process = weights(run_script, outputs, files / "tiny.weights", classes=80)
    refused(process, outputs, "the size of yolov3-tiny with 3 classes")


def test_weights_refuses_names_of_another_number(run_script, outputs, files):
    process = weights(
        run_script,
        outputs,
        files / "tiny.weights",
        *("--classes", files / "classes.txt"),
        classes=4,
    )
    refused(process, outputs, "classes.txt", "expected 4 class names", "got 3")


def test_weights_says_what_to_do_when_a_download_fails(run_script, outputs):
    process = weights(run_script, outputs, "http://127.0.0.1:9/none.weights")
    refused(process, outputs, "input 'weights'", "download failed", "--weights FILE")


def test_weights_refuses_outputs_that_are_not_finite(
    run_script, outputs, files, tmp_path
):
    numbers = np.frombuffer((files / "tiny.weights").read_bytes()[20:], "<f4").copy()
    numbers *= 1e30
    path = tmp_path / "huge.weights"
    path.write_bytes((files / "tiny.weights").read_bytes()[:20] + numbers.tobytes())
    refused(weights(run_script, outputs, path), outputs, "not finite")


# --- train ---


def train(run_script, outputs, files, *arguments, **changes):
    inputs = {
        "classes": [files / "classes.txt"],
        "train": [files / "two.tfrecord"],
        "test": [files / "two.tfrecord"],
        "model": model_files(files / "model"),
    } | changes
    return run_script(
        "train.py",
        *(a for name, paths in inputs.items() for a in (f"--{name}", *paths)),
        *("--epochs=1", "--size=64"),
        *arguments,
        outputs=outputs,
    )


@pytest.mark.parametrize(
    "transfer, kept",
    # Of 8,680,864: the outputs have 24 filters of 512 and of 256 weights and a bias.
    [
        ("darknet", "6,298,480"),
        ("no_output", "8,662,384"),
        ("heads", "8,680,864"),
        ("none", "0"),
    ],
)
def test_train(run_script, outputs, files, transfer, kept):
    process = train(run_script, outputs, files, f"--transfer={transfer}")
    assert process.returncode == 0, process.stderr
    assert f"transfer {transfer}: {kept}" in process.stderr
    lines = [json.loads(line) for line in process.stdout.split("\n") if line]
    assert [line.get("epoch") for line in lines] == [0, 1, None]
    assert lines[1]["images_per_second"] > 0
    trained, info = checkpoint.load_model(outputs / "model")
    assert info == (TINY, NAMES, 64)
    best = lines[2]["best_epoch"]
    assert f"model/ is of epoch {best}" in process.stderr
    if transfer == "heads" and best == 0:
        before, _ = checkpoint.load_model(files / "model")
        for ours, theirs in zip(trained.variables, before.variables, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def moved(outputs, files):
    """The parts of the network that the last epoch has left other than they were."""
    (path,) = (outputs / "checkpoints").glob("epoch-*.json")
    reader = tf.train.load_checkpoint(str(path.with_suffix(".tf")))
    before, _ = checkpoint.load_model(files / "model")
    keys = [key for key in reader.get_variable_to_shape_map() if "model.S" in key]
    assert len(keys) == len(before.variables)
    parts = set()
    for variable in before.variables:
        (key,) = [k for k in keys if variable.path.replace("/", ".S") + "/" in k]
        if (reader.get_tensor(key) != variable.numpy()).any():
            parts.add(variable.path.split("_")[0])
    return parts


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--freeze_epochs=1"], {"output"}),
        (["--transfer=no_output", "--kept_rate=0"], {"output"}),
        (["--epochs=2", "--freeze_epochs=1"], {"backbone", "neck", "output"}),
        (["--transfer=darknet", "--freeze_epochs=9"], {"neck", "output"}),
    ],
)
def test_kept_layers_can_wait_or_stay(run_script, outputs, files, arguments, expected):
    process = train(run_script, outputs, files, *arguments)
    assert process.returncode == 0, process.stderr
    assert moved(outputs, files) >= expected
    if "--epochs=2" not in arguments:
        assert "backbone" not in moved(outputs, files)


def test_nothing_to_train(run_script, outputs, files):
    process = train(run_script, outputs, files, "--kept_rate=0")
    refused(process, outputs, "--kept_rate=0", "nothing would be trained")


def test_a_range_of_sizes(run_script, outputs, files):
    process = train(run_script, outputs, files, "--size=64-128", "--epochs=3")
    assert process.returncode == 0, process.stderr
    assert checkpoint.read_info(outputs / "model").size == 128


def test_patience_ends_a_training(run_script, outputs, files):
    # Too small a rate to change anything: the untrained model stays the best.
    process = train(
        run_script,
        outputs,
        files,
        *("--epochs=9", "--patience=2", "--learning_rate=1e-8", "--freeze_epochs=9"),
    )
    assert process.returncode == 0, process.stderr
    assert "no better AP for 2 epochs: stopped" in process.stderr
    assert "no epoch has made the model better" in process.stderr
    lines = [json.loads(line) for line in process.stdout.split("\n") if line]
    assert [line.get("epoch") for line in lines] == [0, 1, 2, None]


def test_train_refuses_a_class_that_the_class_file_lacks(
    run_script, outputs, files, tmp_path
):
    (tmp_path / "classes.txt").write_text("circle\ntriangle\n")
    process = train(run_script, outputs, files, classes=[tmp_path / "classes.txt"])
    refused(process, outputs, "not in the class file", "square", "ds/1.png")


def test_train_refuses_a_truncated_record_file(run_script, outputs, files, tmp_path):
    short = tmp_path / "short.tfrecord"
    short.write_bytes((files / "two.tfrecord").read_bytes()[:-5])
    process = train(run_script, outputs, files, train=[short])
    refused(process, outputs, str(short), "breaks off in record 1")


def test_train_refuses_a_model_with_a_file_missing(run_script, outputs, files):
    process = train(
        run_script, outputs, files, model=[files / "model" / "model.tf.index"]
    )
    refused(process, outputs, "input 'model'", "model.json")


def test_train_refuses_a_checkpoint_of_another_variant(
    run_script, outputs, files, tmp_path
):
    folder = shutil.copytree(files / "model", tmp_path / "model")
    info = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(info | {"variant": "yolov3"}))
    process = train(run_script, outputs, files, model=model_files(folder))
    refused(process, outputs, str(folder), "for yolov3, got", "another variant")


# --- detect ---


def detect(run_script, outputs, files, *images, model=None, **options):
    return run_script(
        "detect.py",
        *("--model", *model_files(model or files / "model")),
        *("--image", *images),
        *("--size=64", "--score_threshold=0.0001"),
        *(a for name, value in options.items() for a in (f"--{name}", value)),
        outputs=outputs,
    )


def test_detect_pictures_zips_and_records_together(
    run_script, outputs, files, tmp_path
):
    picture = Image.new("RGB", (90, 30), (200, 60, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # Shown turned by a quarter: 30 wide, 90 high.
    picture.save(tmp_path / "turned.jpg", exif=exif)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(files / "picture.png", "folder/picture.png")
        archive.writestr("__MACOSX/folder/._picture.png", b"junk")
        archive.writestr("notes.txt", b"no picture")
    process = detect(
        run_script,
        outputs,
        files,
        files / "picture.png",
        tmp_path / "turned.jpg",
        tmp_path / "more.zip",
        files / "two.tfrecord",
    )
    assert process.returncode == 0, process.stderr
    result = json.loads((outputs / "detections.json").read_text())
    assert [
        (i["file_name"], i["width"], i["height"], i["output"]) for i in result["images"]
    ] == [
        ("picture.png", 64, 48, "output_picture.png"),
        ("turned.jpg", 30, 90, "output_turned.jpg"),
        ("folder/picture.png", 64, 48, "output_picture-2.png"),
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
    assert line["pictures"] == 5 and line["images_per_second"] > 0


def test_detect_refuses_a_picture_that_cannot_be_read(
    run_script, outputs, files, tmp_path
):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    process = detect(
        run_script, outputs, files, files / "picture.png", tmp_path / "broken.jpg"
    )
    refused(process, outputs, "broken.jpg", "expected a picture")


def test_detect_refuses_classes_of_another_model(run_script, outputs, files, tmp_path):
    (tmp_path / "other.txt").write_text("cat\ndog\n")
    process = detect(
        run_script,
        outputs,
        files,
        files / "picture.png",
        classes=tmp_path / "other.txt",
    )
    refused(process, outputs, "other.txt names 2 classes", "model.json", "3")


def test_detect_refuses_a_checkpoint_of_another_class_count(
    run_script, outputs, files, tmp_path
):
    folder = shutil.copytree(files / "model", tmp_path / "model")
    info = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(info | {"classes": ["a", "b"]}))
    process = detect(run_script, outputs, files, files / "picture.png", model=folder)
    refused(process, outputs, "another variant or class count")


def test_detect_refuses_a_zip_without_pictures(run_script, outputs, files, tmp_path):
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("notes.txt", b"no picture")
    process = detect(run_script, outputs, files, tmp_path / "none.zip")
    refused(process, outputs, "no pictures in", "none.zip")
