"""Valohai's client, `vh`, runs the steps on a stand-in for Valohai's API."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import valohai_yaml
from PIL import Image
from project import REPOSITORY
from valohai_server import PROJECT, ValohaiServer

from valohai_step import write_yaml
from valohai_step.local import sample

NUM_TRAIN, NUM_TEST, SIZE = 12, 5, 64
# A training run of seconds, on a network of random numbers.
TINY = {"size": SIZE, "transfer": "none", "batch_size": 4, "mosaic": 0}
ZIPS = ("images", "labels")
EPOCHS = 3  # Of the interrupted training run.
SECONDS = 180


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone of the project, with files that accumulate in one."""
    folder = tmp_path_factory.mktemp("clone") / "train-superbai"
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    for arguments in (["init"], ["add", "."], [*who, "commit", "-m", "All"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    for name in (
        ".valohai/outputs/20260101-000000-0a1b2c3d/train/model/model.json",
        "venv/lib/python3.11/site-packages/keras.py",
        "__pycache__/train.cpython-311.pyc",
        "yolov3_tf2/boxes/__pycache__/geometry.cpython-311.pyc",
        "images.zip",
        "yolov3.weights",
        "train-00000-of-00001.tfrecord",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not to be sent")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # The stand-in passes the environment of the tests on to the steps.
        patch.setenv("NO_PROXY", "127.0.0.1")
        for name in os.environ:
            if name.startswith(("VH_", "SPB_", "VALOHAI_")):
                patch.delenv(name)
        with ValohaiServer(tmp_path_factory.mktemp("valohai")) as server:
            yield server
        assert server.errors == []


@pytest.fixture(scope="module")
def client(project):
    """Returns a function that runs `vh` with its settings in a given folder."""

    def run(settings, *arguments):
        return subprocess.run(
            [str(Path(sys.executable).with_name("vh")), *map(str, arguments)],
            cwd=project,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(settings),
                "VALOHAI_CONFIG_DIR": str(settings),
                "LC_ALL": "C.UTF-8",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    return run


@pytest.fixture(scope="module")
def vh(client, server, tmp_path_factory):
    """Runs `vh`, logged in and linked to the project; returns its output."""
    settings = tmp_path_factory.mktemp("settings")

    def run(*arguments, status=0):
        process = client(settings, *arguments)
        output = process.stdout + process.stderr
        assert process.returncode == status, output
        return output

    run("login", "--host", server.url, "--token", server.token)
    assert f"to {PROJECT}." in run("project", "link", PROJECT, "--yes")
    return run


@pytest.fixture(scope="module")
def export(server, tmp_path_factory):
    """The uploaded files of a small Suite export and of weights, by name."""
    from yolov3_tf2.network import darknet
    from yolov3_tf2.network.model import build_model
    from yolov3_tf2.network.variants import VARIANTS

    folder = tmp_path_factory.mktemp("export")
    sample.write_export(folder, NUM_TRAIN, NUM_TEST)
    model = build_model(VARIANTS["yolov3-tiny"], num_classes=80)
    darknet.write_weights(folder / "yolov3-tiny.weights", model)
    return {path.name: server.add_file(path.name, path) for path in folder.iterdir()}


def options(values, node=""):
    """Returns arguments of `vh` for a dict of parameters of a node or a single step."""
    if node:
        return [f"--{node}.{name}={value}" for name, value in values.items()]
    # `vh exec run` accepts only dashes.
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]


def inputs(**values):
    """Returns arguments of `vh` for inputs: lists of `Datum` by name."""
    return [f"--{name}={datum.uri}" for name, data in values.items() for datum in data]


def below(execution, folder):
    """Returns the outputs of an execution in a folder."""
    return [d for d in execution.outputs if d.name.startswith(f"{folder}/")]


@pytest.fixture(scope="module")
def converted(vh, server, export):
    """The finished execution of convert-superbai."""
    vh(
        *("exec", "run", "--adhoc", "--title=Shapes", "convert-superbai"),
        *("--images-per-shard=5", "--valohai-dataset=shapes"),
        *inputs(**{name: [export[f"{name}.zip"]] for name in ZIPS}),
    )
    execution = server.executions[-1]
    assert execution.wait(SECONDS) == "complete", execution.text
    return execution


@pytest.fixture(scope="module")
def weights(vh, server, export):
    """The finished execution of weights; the worker has downloaded its input."""
    address = server.address(export["yolov3-tiny.weights"])
    vh(
        *("exec", "run", "--adhoc", "weights"),
        *("--model=yolov3-tiny", f"--weights={address}"),
    )
    execution = server.executions[-1]
    assert execution.wait(SECONDS) == "complete", execution.text
    return execution


@pytest.fixture(scope="module")
def training_inputs(converted, weights):
    """Arguments of `vh` for the inputs of train, from the steps before it."""
    return inputs(
        classes=[converted.output("classes.txt")],
        train=below(converted, "train"),
        test=below(converted, "test"),
        model=below(weights, "model"),
    )


def test_login(client, server, tmp_path):
    for number, (arguments, status, message) in enumerate(
        (
            (["--token", server.token], 0, "Logged in. Hey somebody!"),
            (["--token", "another"], 1, "API Error: Invalid token."),
            (["-u", server.username, "-p", server.password], 0, "Logged in."),
            (["-u", server.username, "-p", "another"], 1, "Unable to log in with"),
        )
    ):
        settings = tmp_path / str(number)
        settings.mkdir()
        process = client(settings, "login", "--host", server.url, *arguments)
        assert process.returncode == status
        assert message in process.stdout + process.stderr
        saved = settings / "config.json"
        assert saved.is_file() == (not status)
        assert status or json.loads(saved.read_text())["token"] == server.token


def test_lint(vh, project):
    assert vh("lint").strip().endswith("valohai.yaml: No errors")


def test_the_commands_that_write_valohai_yaml(vh, project):
    path = project / "valohai.yaml"
    committed = path.read_bytes()
    for script in write_yaml.STEPS:
        assert "already up-to-date" in vh("yaml", "step", script)
    assert path.read_bytes() == committed
    vh("yaml", "pipeline", *write_yaml.PIPELINES)
    written, expected = (
        valohai_yaml.parse(text.decode()) for text in (path.read_bytes(), committed)
    )
    assert expected.tasks and not written.tasks  # It deletes them.
    expected.tasks = {}
    assert written.serialize() == expected.serialize()
    subprocess.run(
        [sys.executable, "-m", "valohai_step.write_yaml"], cwd=project, check=True
    )
    assert path.read_bytes() == committed
    changed = ["git", "status", "--porcelain", "--untracked-files=no"]
    assert subprocess.check_output(changed, cwd=project) == b""


def test_the_package_has_what_steps_need(vh, server, project):
    # Rejected, as the inputs are missing, but after the package was sent.
    output = vh("exec", "run", "--adhoc", "convert-superbai", status=1)
    assert "input 'labels' of convert-superbai is missing" in output
    (identifier,) = re.findall(r"(?:Uploaded ad-hoc code|Ad-hoc code) (~\w+)", output)
    commit = server.commits[identifier]
    assert re.fullmatch(r"heads/\w+-0-g[0-9a-f]{7,}", commit.description)
    sent = {
        path.relative_to(commit.folder).as_posix()
        for path in commit.folder.rglob("*")
        if path.is_file()
    }
    # All files of `git`, except hidden ones and those that no step needs.
    unneeded = (".", "benchmarks/", "docs/", "tests/")
    unneeded += ("Dockerfile", "README.md", "pyproject.toml")
    tracked = subprocess.check_output(["git", "ls-files"], cwd=project, text=True)
    assert sent == {name for name in tracked.split() if not name.startswith(unneeded)}
    assert {*write_yaml.STEPS, "valohai.yaml", "yolov3_tf2/network/coco.names"} <= sent
    assert {"superbai/export.py", "valohai_step/inputs.py"} <= sent
    for step in commit.config.steps.values():
        assert step.command[0].split()[-1] in sent
    # Packaging without git finds the same files, and nothing is sent twice.
    for option in ("--git-packaging", "--no-git-packaging"):
        output = vh("exec", "run", "--adhoc", option, "convert-superbai", status=1)
        assert f"Ad-hoc code {identifier} already uploaded" in output


def test_what_is_rejected(vh, server, export):
    count = len(server.executions)
    images, labels = export["images.zip"].uri, export["labels.zip"].uri
    both = [f"--images={images}", f"--labels={labels}"]
    run = ("exec", "run", "--adhoc", "convert-superbai")
    for arguments, status, message in (
        # By vh itself.
        (["--images_per_shard=5"], 2, "No such option"),
        (["--images-per-shard=x"], 2, "'x' is not a valid integer"),
        # By Valohai.
        ([f"--images={images}"], 1, "input 'labels' of convert-superbai is missing"),
        (
            ["--images-per-shard=0", *both],
            1,
            "from 1 to 1000000, got 0",
        ),
        (["--polygons=cut", *both], 1, "expected one of skip, box, got 'cut'"),
        (["--images=datum://none", f"--labels={labels}"], 1, "there is no such file"),
    ):
        assert message in vh(*run, *arguments, status=status)
    run = ("pipeline", "run", PROJECT, "--adhoc")
    for arguments, status, message in (
        (["--train.epoch=1"], 2, "train.epoch does not refer to a parameter or input"),
        (["--trane.epochs=1"], 2, "Node 'trane' not found in the pipeline"),
        (["--convert-superbai.images=images.zip"], 2, "must be valid URI(s)"),
        (["--epoch=1"], 2, "Unknown pipeline parameters: ['epoch']"),
        (options({"images": images}, "convert-superbai"), 1, "input 'labels' of"),
        (
            [
                *options({"images": images, "labels": labels}, "convert-superbai"),
                "--epochs=0",
            ],
            1,
            "expected a value from 1 to 10000, got 0",
        ),
    ):
        assert message in vh(*run, *arguments, status=status)
    assert "trane" in vh("exec", "run", "--adhoc", "trane", status=2)
    assert len(server.executions) == count and not server.pipelines


@pytest.mark.slow
def test_convert(vh, converted, tmp_path):
    assert converted.payload["title"] == "Shapes"
    assert converted.node.parameters["images_per_shard"] == 5
    assert converted.node.parameters["include_unsubmitted"] is False
    (line,) = converted.node.metadata
    assert (line["images_train"], line["images_test"]) == (NUM_TRAIN, NUM_TEST)
    output = vh("exec", "outputs", converted.counter, "--download", tmp_path)
    version = rf"dataset://shapes/\d{{8}}-\d{{6}}-{converted.counter}"
    for datum in converted.outputs:
        (name,) = datum.properties["valohai.dataset-versions"]
        assert re.fullmatch(version, name)
        assert datum.uri in output
        assert (tmp_path / datum.name).read_bytes() == datum.path.read_bytes()
    assert sorted(datum.name for datum in converted.outputs) == [
        "classes.txt",
        "data.json",
        "preview.jpg",
        "test/test-00000-of-00001.tfrecord",
        *(f"train/train-0000{number}-of-00003.tfrecord" for number in range(3)),
        "validation/validation-00000-of-00001.tfrecord",
    ]
    with Image.open(tmp_path / "preview.jpg") as preview:
        preview.load()
    log = vh("exec", "logs", converted.counter)
    assert "complete, exit status 0" in log and '"images_train": 12' in log
    assert f"#{converted.counter}" in vh("data", "list")
    assert "convert-superbai" in vh("exec", "info", converted.counter)


@pytest.mark.slow
def test_weights(server, weights):
    assert "downloading http://127.0.0.1" not in weights.text  # The worker's job.
    names = ["model.json", "model.tf.data-00000-of-00001", "model.tf.index"]
    assert [d.name for d in weights.outputs] == [f"model/{name}" for name in names]
    info = json.loads(weights.output("model/model.json").path.read_text())
    assert info["variant"] == "yolov3-tiny" and len(info["classes"]) == 80


@pytest.fixture(scope="module")
def trained(vh, server, training_inputs):
    """Two executions of train: one whose machine is lost, and the one restarted."""
    names = {"valohai_model": "shapes", "valohai_alias": "best", "valohai_tags": "a,b"}
    vh(
        *("exec", "run", "--adhoc", "--autorestart", "train"),
        *options(TINY | names | {"epochs": EPOCHS}),
        *training_inputs,
    )
    interrupted = server.executions[-1]
    deadline = time.monotonic() + SECONDS
    while not any(
        d.name.startswith("checkpoints/epoch-0002") for d in interrupted.outputs
    ):
        assert interrupted.status in ("created", "started"), interrupted.text
        assert time.monotonic() < deadline, interrupted.text
        time.sleep(0.1)
    restarted = server.restart(interrupted.counter)
    assert restarted.wait(SECONDS) == "complete", restarted.text
    return interrupted, restarted


@pytest.mark.slow
def test_checkpoints_are_uploaded_while_the_step_runs(vh, trained):
    interrupted, _ = trained
    assert interrupted.status == "crashed"
    assert all(datum.is_live for datum in interrupted.outputs)
    for kind in ("epoch-0000", "best-0000", "epoch-0001"):
        endings = ("json", "tf.data-00000-of-00001", "tf.index")
        for ending in endings:
            datum = interrupted.output(f"checkpoints/{kind}.{ending}")
            assert datum.path.stat().st_size
    # Only checkpoints, and each name once.
    names = [datum.name for datum in interrupted.outputs]
    assert len(set(names)) == len(names)
    assert {name.partition("/")[0] for name in names} == {"checkpoints"}
    assert listed(vh, "exec", interrupted.counter)["status"] == "crashed"


@pytest.mark.slow
def test_a_restarted_training_resumes(server, trained):
    interrupted, restarted = trained
    (last,) = re.findall(r"resuming after epoch (\d)", restarted.text)
    assert 1 <= int(last) < EPOCHS
    before = [line["epoch"] for line in interrupted.node.metadata if "epoch" in line]
    after = [line["epoch"] for line in restarted.node.metadata if "epoch" in line]
    assert before[: int(last) + 1] == list(range(int(last) + 1))
    assert after == list(range(int(last) + 1, EPOCHS + 1))
    state = json.loads(
        restarted.output(f"checkpoints/epoch-{EPOCHS:04}.json").path.read_text()
    )
    assert [row["epoch"] for row in state["history"]] == list(range(EPOCHS + 1))


@pytest.mark.slow
def test_the_status_of_a_training(vh, trained):
    interrupted, restarted = trained
    assert interrupted.status_details[0].startswith(f"epoch 0/{EPOCHS}: AP ")
    *epochs, last = restarted.status_details
    assert epochs[-1].startswith(f"epoch {EPOCHS}/{EPOCHS}: AP ")
    assert re.match(r"model/ is from epoch \d: AP ", last)
    assert last in vh("exec", "info", restarted.counter)


@pytest.mark.slow
def test_the_model_has_its_properties(trained):
    _, restarted = trained
    properties = {
        name.removeprefix("model/model."): restarted.output(name).properties
        for name in restarted.properties
    }
    assert sorted(properties) == ["json", "tf.data-00000-of-00001", "tf.index"]
    for ending, values in properties.items():
        (part,) = set(ending.split(".")) & {"json", "index"} or {"data"}
        assert values["valohai.alias"] == f"best-{part}"
        assert values["valohai.tags"] == ["a", "b"]
        (version,) = values["valohai.model-versions"]
        assert version["model_uri"] == "model://shapes/"
        assert version["model_version_tags"] == ["a", "b"]
        assert restarted.node.metadata[-1]["best_epoch"] >= 0
        assert version["model_release_note"]
    # No other file has any, and the file of properties is not an output.
    names = [datum.name for datum in restarted.outputs]
    assert {name for name in names if name.startswith("model/")} == set(
        restarted.properties
    )
    assert not any("valohai.metadata" in name for name in names)


@pytest.mark.slow
def test_detect(vh, server, trained, converted, tmp_path):
    _, restarted = trained
    run = ("exec", "run", "--adhoc", "detect", "--score-threshold=0", "--max-boxes=3")
    arguments = inputs(image=below(converted, "test"))
    # The newest model with the alias.
    arguments += [f"--model=datum://best-{part}" for part in ("json", "index", "data")]
    # `vh exec run` has an option `--image` itself; after `--` it is the input.
    assert "input 'image' of detect is missing" in vh(*run, *arguments, status=1)
    vh(*run[:4], "--", *run[4:], *arguments)
    execution = server.executions[-1]
    assert execution.wait(SECONDS) == "complete", execution.text
    model = {Path(path) for path in execution.node.inputs["model"]}
    assert model == {datum.path for datum in below(restarted, "model")}
    vh("exec", "outputs", "latest", "--download", tmp_path, "-f", "output_*")
    check_images(execution, tmp_path)


def check_images(execution, folder):
    """Checks the images that detect has drawn and `vh` has downloaded to a folder."""
    result = json.loads(execution.output("detections.json").path.read_text())
    names = [image["output"] for image in result["images"]]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert len(names) == NUM_TEST and result["annotations"]
    for image in result["images"]:
        with Image.open(folder / image["output"]) as drawn:
            drawn.load()
            assert drawn.size == (sample.IMAGE_SIZE, sample.IMAGE_SIZE)


def test_options_that_vh_has_too(vh, project):
    # Without the dashes in `vh exec run STEP -- --tag=train` they are options of `vh`.
    config = valohai_yaml.parse((project / "valohai.yaml").read_text())
    help_text = vh("exec", "run", "--help")
    shared = {
        (step.name, name)
        for step in config.steps.values()
        for name in (*step.parameters, *step.inputs)
        if re.search(rf"--{name.replace('_', '-')}\b(?!-)", help_text)
    }
    expected = {("weights", "image"), ("detect", "image"), ("upload-superbai", "tag")}
    assert shared == expected


def listed(vh, kind, counter):
    """Returns what `vh` lists about an execution, a pipeline or a task."""
    rows = json.loads(vh("--output-format=json", kind, "list"))
    return next(row for row in rows if row["counter"] == counter)


@pytest.mark.slow
def test_a_failing_step(vh, server, tmp_path):
    path = tmp_path / "detections.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    boxes = server.add_file(path.name, path)
    vh(
        *("exec", "run", "--adhoc", "upload-superbai", "--"),
        *("--project=Cars", "--dry-run=true", "--tag=train"),
        *inputs(annotations=[boxes]),
    )
    execution = server.executions[-1]
    assert execution.node.parameters["tag"] == "train"
    assert execution.node.parameters["dry_run"] is True
    assert execution.wait(SECONDS) == "error"
    log = vh("exec", "logs", "latest")
    assert "SPB_ACCESS_KEY" in log and "Traceback" not in log
    assert "error, exit status 1" in log
    assert listed(vh, "exec", execution.counter)["status"] == "error"
    assert execution.outputs == []
    assert "no outputs" in vh("exec", "outputs", "latest")


@pytest.mark.slow
def test_stop(vh, server, training_inputs):
    vh(
        *("exec", "run", "--adhoc", "train"),
        *options(TINY | {"epochs": 10000}),
        *training_inputs,
    )
    execution = server.executions[-1]
    deadline = time.monotonic() + SECONDS
    while "yolov3-tiny: 3 classes" not in execution.text:
        assert execution.status in ("created", "started"), execution.text
        assert time.monotonic() < deadline, execution.text
        time.sleep(0.1)
    assert "Done." in vh("exec", "stop", execution.counter)
    assert execution.wait(60) == "stopped"
    assert "SIGTERM" in vh("exec", "logs", execution.counter)


@pytest.fixture(scope="module")
def pipelines(vh, server, export):
    """Two finished runs of train-superbai: a whole one, and one that is stopped.

    The second requires more than the model reaches. It reuses nodes of the first.
    """
    arguments = {
        "convert-superbai": {name: export[f"{name}.zip"].uri for name in ZIPS},
        "weights": {"weights": export["yolov3-tiny.weights"].uri},
        "train": {name: value for name, value in TINY.items() if name != "size"},
        "detect": {"score_threshold": 0, "max_boxes": 3},
    }
    arguments = {n: options(values, n) for n, values in arguments.items()}
    run = ("pipeline", "run", PROJECT, "--adhoc", f"--size={SIZE}", "--epochs=1")
    vh(*run, "--model=yolov3-tiny", *(o for each in arguments.values() for o in each))
    server.pipelines[0].wait(SECONDS)
    again = "--reuse=latest:convert-superbai,weights"
    vh(*run, again, "--min_ap50=1", *arguments["train"])
    server.pipelines[1].wait(SECONDS)
    return server.pipelines


def steps_of(pipeline):
    return [(e.node.step.name, e.status) for e in pipeline.executions]


@pytest.mark.slow
def test_a_whole_pipeline(vh, pipelines, tmp_path):
    pipeline = pipelines[0]
    assert pipeline.status == "complete", pipeline.executions[-1].text
    *first, (third, _), (fourth, _) = steps_of(pipeline)
    assert sorted(first) == [("convert-superbai", "complete"), ("weights", "complete")]
    assert (third, fourth) == ("train", "detect")
    train, detect = pipeline.executions[2:]
    # The parameters of the pipeline have arrived at the steps, with their types.
    assert train.node.parameters["epochs"] == 1
    assert train.node.parameters["size"] == str(SIZE)
    assert [line["epoch"] for line in train.node.metadata if "epoch" in line] == [0, 1]
    assert detect.node.parameters["score_threshold"] == 0.0
    vh("exec", "outputs", detect.counter, "--download", tmp_path, "-f", "output_*")
    check_images(detect, tmp_path)
    assert listed(vh, "pipeline", 1)["status"] == "complete"


@pytest.mark.slow
def test_a_pipeline_stops_if_the_model_is_too_poor(vh, pipelines):
    pipeline = pipelines[1]
    assert pipeline.status == "stopped"
    assert steps_of(pipeline) == [("train", "complete")]
    train = pipeline.executions[-1]
    assert train.node.metadata[-1]["below_min_ap50"] == 1
    assert "below --min_ap50=1" in train.text
    assert listed(vh, "pipeline", 2)["status"] == "stopped"


@pytest.mark.slow
def test_the_sweep_of_learning_rates(vh, server, training_inputs):
    vh(
        *("task", "run", "--adhoc", "learning-rate-sweep"),
        *options(TINY | {"epochs": 1, "valohai_alias": "best", "valohai_tags": "a"}),
        *training_inputs,
    )
    task = server.tasks[-1]
    assert task.wait(SECONDS) == "complete", [e.text for e in task.executions]
    rates = [
        execution.node.parameters["learning_rate"] for execution in task.executions
    ]
    assert rates == [0.0003, 0.001, 0.003]
    assert len({e.node.metadata[1]["learning_rate"] for e in task.executions}) == 3
    for execution in task.executions:
        assert execution.node.parameters["epochs"] == 1
        # The last one to end would take the alias from the best one.
        model = execution.output("model/model.json")
        assert model.properties == {"valohai.tags": ["a"]}
    assert listed(vh, "task", task.counter)["status"] == "complete"


@pytest.mark.slow
def test_a_distributed_training(vh, server, training_inputs):
    vh(
        *("task", "run", "--adhoc", "train-distributed"),
        *options(TINY | {"epochs": 1}),
        *training_inputs,
    )
    task = server.tasks[-1]
    assert task.wait(SECONDS) == "complete", [e.text for e in task.executions]
    master, other = task.executions
    # So that the machines of a task can reach each other.
    assert task.payload["environment_variables"] == {"VH_DOCKER_NETWORK": "host"}
    assert "2 workers with 1 CPU each" in master.text
    assert [line["epoch"] for line in master.node.metadata if "epoch" in line] == [0, 1]
    assert master.output("model/model.json")
    # Only the master logs and writes.
    assert other.outputs == [] and other.node.metadata == []
