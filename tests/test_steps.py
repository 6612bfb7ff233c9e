"""What all steps have in common: parameters, inputs, outputs, signals, errors."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from project import REPOSITORY
from steps import NAMES, detect, model_files, refused, train

from valohai_step import runtime
from valohai_step.outputs import _publish
from yolov3_tf2.network import checkpoint


def test_a_failed_import_of_tensorflow_is_shown(
    run_script, outputs, files, without_tensorflow
):
    process = run_script(
        "convert_superbai.py",
        *("--images", files / "images.zip", "--labels", files / "labels.zip"),
        outputs=outputs,
        **without_tensorflow,
    )
    assert process.returncode == 1 and "imported too early" in process.stderr


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
        ("train.py", ["--epoch=3"], ["unknown option --epoch; did you mean --epochs?"]),
        (
            "detect.py",
            ["a.jpg"],
            ["unexpected value 'a.jpg': expected an"],
        ),
        ("train.py", ["--epochs", "3", "4"], ["--epochs: expected one value, got 3 4"]),
        ("convert_superbai.py", ["--images="], ["missing value for --images"]),
        ("detect.py", ["--iou_threshold=1.5"], ["from 0 to 1", "got 1.5"]),
        ("detect.py", ["--score_threshold=-0.5"], ["from 0 to 1", "got -0.5"]),
        ("weights.py", ["--model=yolov4"], ["yolov3-tiny", "'yolov4'"]),
        ("detect.py", ["--size=-32"], ["--size", "from 0 to 4096", "got -32"]),
        ("detect.py", ["--size=300"], ["--size", "multiple of 32", "got 300"]),
        ("detect.py", ["--max_boxes=-1"], ["--max_boxes", "got -1"]),
        ("detect.py", ["--max_unreadable=-1"], ["--max_unreadable", "got -1"]),
        ("convert_superbai.py", ["--test_fraction=1"], ["from 0.01 to 0.9", "got 1"]),
        ("convert_superbai.py", ["--polygons=all"], ["skip, box", "got 'all'"]),
        ("convert_superbai.py", ["--skip_missing=1"], ["true or false, got '1'"]),
        ("train.py", ["--epochs", "abc"], ["--epochs: expected an integer, got 'abc'"]),
        ("train.py", ["--epochs=1.5"], ["--epochs: expected an integer, got '1.5'"]),
        ("train.py", ["--epochs"], ["missing value for --epochs"]),
        ("train.py", ["--epochs="], ["missing value for --epochs"]),
        ("train.py", ["--learning_rate=0,1"], ["expected a number, got '0,1'"]),
        ("detect.py", ["--score_threshold=0,5"], ["expected a number, got '0,5'"]),
        ("detect.py", ["--score_threshold", ""], ["missing value for --score_thresh"]),
        ("detect.py", ["--nothing"], ["unknown option --nothing; expected one of"]),
        ("convert_superbai.py", ["--test_fraction=a"], ["expected a number, got 'a'"]),
        ("convert_superbai.py", ["--polygons"], ["missing value for --polygons"]),
        ("weights.py", ["--weights_num_classes=x"], ["expected an integer, got 'x'"]),
        ("weights.py", ["--weights_num_classes=0"], ["from 1 to 10000, got 0"]),
        ("upload_superbai.py", ["--score_threshold=0,5"], ["expected a number, got"]),
        ("upload_superbai.py", ["--status="], ["missing value for --status"]),
        ("upload_superbai.py", ["--dry_run=2"], ["true or false, got '2'"]),
        ("upload_superbai.py", ["--x=1"], ["unknown option --x; expected one of"]),
        (
            "convert_superbai.py",
            ["--skip_missing", "yes"],
            ["true or false, got 'yes'"],
        ),
    ],
)
def test_parameters(run_script, outputs, without_tensorflow, script, arguments, words):
    process = run_script(script, *arguments, outputs=outputs, **without_tensorflow)
    refused(process, outputs, *words)


SCRIPTS = (
    "convert_superbai.py",
    "weights.py",
    "train.py",
    "detect.py",
    "upload_superbai.py",
)


@pytest.mark.parametrize("script", [*SCRIPTS, "pipeline.py"])
def test_help(run_script, outputs, without_tensorflow, script):
    process = run_script(script, "--epochs=x", "-h", outputs=outputs)
    assert process.returncode == 0 and not process.stderr
    assert process.stdout.splitlines()[0].startswith(("usage: python", "python pipe"))


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "name, content, words",
    [
        ("parameters", b"{", "in JSON, got Expecting property name"),
        ("parameters", b"[1]", "with an object in braces, got list."),
        ("inputs", b'{"images": ', "in JSON, got Expecting value"),
        ("inputs", b"\xff\xfe{}", "in JSON, got "),
        ("inputs", b'{"a": {"files": [{"path": "x"}]}}', "input 'a': expected a list"),
        ("inputs", b'{"a": {"files": 7}}', "input 'a': expected a list of files"),
        ("inputs", b'{"a": null}', "input 'a': expected a list of files with names"),
        ("execution", b"", "in JSON, got Expecting value"),
        ("distributed", b"{", "in JSON, got Expecting property name"),
    ],
)
def test_damaged_config_files(
    run_script, outputs, tmp_path, script, name, content, words
):
    (tmp_path / f"{name}.json").write_bytes(content)
    process = run_script(script, outputs=outputs, VH_CONFIG_DIR=str(tmp_path))
    refused(process, outputs, f"error: {tmp_path / f'{name}.json'}: ", words)
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "script, name, words",
    [
        ("convert_superbai.py", "labels", ["give it with --labels FILE."]),
        (
            "train.py",
            "classes",
            ["python convert_superbai.py --labels FILE"],
        ),
        ("detect.py", "model", ["python train.py."]),
    ],
)
def test_missing_inputs_name_the_command_that_makes_them(
    run_script, outputs, tmp_path, script, name, words
):
    # Run where there are no local outputs.
    shutil.copytree(
        REPOSITORY,
        tmp_path / "empty",
        ignore=shutil.ignore_patterns(".*", "tests", "__pycache__"),
    )
    process = run_script(script, outputs=outputs, cwd=tmp_path / "empty")
    refused(process, outputs, f"input '{name}' of ", " is missing; ", *words)


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


def test_outputs_are_replaced_all_or_none(tmp_path, monkeypatch):
    root, staging = tmp_path / "root", tmp_path / "root" / ".partial-new"
    for folder, content in ((root, "old"), (staging, "new")):
        (folder / "train").mkdir(parents=True)
        (folder / "train" / "a").write_text(content)
        (folder / "classes.txt").write_text(content)
    real = Path.replace

    def fail(path, target):
        if path.name == "train" and path.parent == staging:
            raise OSError("no room")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no room"):
        _publish(staging, root)
    assert (root / "classes.txt").read_text() == "old"
    assert (root / "train" / "a").read_text() == "old"
    monkeypatch.setattr(Path, "replace", real)
    _publish(staging, root)
    assert (root / "classes.txt").read_text() == "new"
    assert (root / "train" / "a").read_text() == "new"
    assert sorted(path.name for path in root.iterdir()) == ["classes.txt", "train"]


@pytest.mark.parametrize("script", [*SCRIPTS, "pipeline.py"])
def test_ctrl_c_while_a_script_starts(tmp_path, script):
    (tmp_path / "valohai.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / script)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The shell may have started the tests in the background, where it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert (process.returncode, stderr) == (130, "stopped by SIGINT\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_waits_for_the_outputs(name):
    number, seen = getattr(signal, name), []
    # Set here, as a shell's background process ignores SIGINT.
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), runtime.signals_held():
            signal.raise_signal(number)
            seen.append("the block continues")
        assert seen
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("status", [0, 2])
def test_a_signal_after_the_end_changes_nothing(name, status):
    program = (
        "import atexit, signal\n"
        "from valohai_step import runtime\n"
        f"atexit.register(lambda: signal.raise_signal(signal.{name}))\n"
        f"runtime.run_step(lambda: {status})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, stderr=subprocess.PIPE
    )
    assert (done.returncode, done.stderr) == (status, b"")


def test_inputs_may_be_archives_and_are_named_in_the_log(
    run_script, outputs, files, tmp_path
):
    shutil.make_archive(tmp_path / "model", "zip", files, "model")
    shutil.make_archive(tmp_path / "data", "gztar", files, "two.tfrecord")
    process = train(
        run_script,
        outputs,
        files,
        model=[tmp_path / "model.zip"],
        train=[tmp_path / "data.tar.gz"],
    )
    assert process.returncode == 0, process.stderr
    size = (tmp_path / "model.zip").stat().st_size / 1e6
    assert f"model: model.zip, {size:.1f} MB" in process.stderr
    assert "train: data.tar.gz, " in process.stderr
    assert "2 training images, 2 test images" in process.stderr
    assert checkpoint.read_model_info(outputs / "model").class_names == NAMES


def test_a_damaged_archive_is_refused(run_script, outputs, files, tmp_path):
    shutil.make_archive(tmp_path / "model", "zip", files, "model")
    data = (tmp_path / "model.zip").read_bytes()
    for name, content in (("half.zip", data[: len(data) // 2]), ("not.tar", data)):
        (tmp_path / name).write_bytes(content)
        process = train(run_script, outputs, files, model=[tmp_path / name])
        refused(process, outputs, f"{name}: cannot be unpacked (", "download complete?")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfcircle\r\n\r\nsquare  \r\n\ttriangle\r\n\r\n",
        b"circle\n\nsquare\ntriangle",
    ],
    ids=["Windows", "no end"],
)
def test_class_files_of_any_editor(run_script, outputs, files, tmp_path, content):
    (tmp_path / "names.txt").write_bytes(content)
    process = detect(
        run_script,
        outputs,
        files,
        files / "image.png",
        classes=tmp_path / "names.txt",
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\n \n", ["names.txt: expected one class name per line, got none"]),
        (b"circle\ncircle \nsquare\n", ["names.txt", "got circle more than once"]),
        ("고양이\n".encode("cp949"), ["names.txt", "save it as UTF-8"]),
        ("cat\n".encode("utf-16"), ["names.txt", "save it as UTF-8"]),
    ],
    ids=["empty", "twice", "cp949", "UTF-16"],
)
def test_class_files_that_are_rejected(
    run_script, outputs, files, tmp_path, without_tensorflow, content, words
):
    (tmp_path / "names.txt").write_bytes(content)
    process = run_script(
        "train.py",
        *("--classes", tmp_path / "names.txt", "--train", files / "two.tfrecord"),
        *("--test", files / "two.tfrecord", "--model", *model_files(files / "model")),
        outputs=outputs,
        **without_tensorflow,
    )
    refused(process, outputs, *words)


@pytest.mark.parametrize("script", ["train.py", "detect.py"])
@pytest.mark.parametrize("missing", checkpoint.FILES)
def test_a_model_with_a_file_missing_is_refused(
    run_script, outputs, files, script, missing
):
    rest = [path for path in model_files(files / "model") if path.name != missing]
    inputs = ["--image", files / "image.png"]
    if script == "train.py":
        records_file = files / "two.tfrecord"
        inputs = ["--classes", files / "classes.txt"]
        inputs += ["--train", records_file, "--test", records_file]
    folder = outputs.parent / "model"
    folder.mkdir()
    rest = [shutil.copy(path, folder) for path in rest]
    process = run_script(script, "--model", *rest, *inputs, outputs=outputs)
    refused(process, outputs, missing)


@pytest.mark.parametrize(
    "raised, status, words",
    [
        ("KeyboardInterrupt", 130, "stopped by SIGINT"),
        ("SystemError('bad argument')", 130, "stopped by SIGINT"),
        (
            "tf.errors.ResourceExhaustedError(None, None, 'OOM')",
            1,
            "lower --batch_size",
        ),
    ],
)
def test_what_ends_a_step(tmp_path, raised, status, words):
    # TensorFlow's C++ code can turn a signal into another exception.
    is_stopped = status == 130
    (tmp_path / "script.py").write_text(
        "import signal, tensorflow as tf\n"
        "from valohai_step import runtime\n"
        "def main():\n"
        "    try:\n"
        f"        {is_stopped} and signal.raise_signal(signal.SIGINT)\n"
        "    finally:\n"
        f"        raise {raised}\n"
        "runtime.run_step(main)\n"
    )
    process = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == status, process.stderr
    assert words in process.stderr and "Traceback" not in process.stderr
