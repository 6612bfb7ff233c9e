"""A training run that is interrupted at any moment resumes with the same results."""

import json
import random
import re
import shutil
import signal
import time
from contextlib import suppress

import pytest
import tensorflow as tf
from absl import logging
from project import start_training
from valohai_worker import files, watched

from valohai_step import resuming
from yolov3_tf2.errors import InputError
from yolov3_tf2.training import state as training_state

EPOCHS = 8
# Depends on the speed of the machine.
CLOCK = ("images_per_second",)


@pytest.fixture(scope="module")
def data(training_inputs):
    """Arguments that train a small network, with frozen layers at first."""
    return [
        *training_inputs,
        *("--transfer=no_output", "--freeze_epochs=3", "--learning_rate=0.001"),
        *("--size=64-96", f"--epochs={EPOCHS}", "--batch_size=4"),
    ]


def rows(stdout):
    lines = [json.loads(line) for line in stdout.split("\n") if line]
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data):
    """The metrics of an uninterrupted training, and the seconds that it took."""
    process = start_training(tmp_path_factory.mktemp("uninterrupted"), data)
    first, lines = None, []
    for line in process.stdout:
        first = first or (time.monotonic() if line.strip() else None)
        lines.append(line)
    took = time.monotonic() - first
    assert process.wait() == 0, process.stderr.read()
    return rows("".join(lines)), took


def as_on_valohai(folder, data):
    """Returns arguments and environment of an execution that Valohai restarts.

    The outputs of the first one are in an input that the step does not declare.
    """
    inputs, parameters, name = {"_restart": (folder / "first").rglob("*")}, [], None
    for argument in data:
        if "=" in str(argument):
            parameters.append(argument)
        elif str(argument).startswith("--"):
            name = argument[2:]
            inputs[name] = []
        else:
            inputs[name].append(argument)
    config = folder / "config"
    config.mkdir()
    files = {
        name: {
            "files": [
                {"name": p.name, "path": str(p), "size": p.stat().st_size, "uri": ""}
                for p in sorted(paths)
                if p.is_file()
            ]
        }
        for name, paths in inputs.items()
    }
    (config / "inputs.json").write_text(json.dumps(files))
    return parameters, {"VH_CONFIG_DIR": str(config), "VH_JOB_ID": "exec-1"}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_killed_at_a_random_moment(tmp_path, data, uninterrupted, how):
    expected, took = uninterrupted
    number = getattr(signal, how)
    status = 0
    while status == 0:  # On an idle machine it may finish before the signal.
        delay = took = random.SystemRandom().uniform(0, took)
        shutil.rmtree(tmp_path / "first", ignore_errors=True)
        process = start_training(tmp_path / "first", data)
        while not process.stdout.readline().strip():
            assert process.poll() is None, process.stderr.read()
        time.sleep(delay)
        process.send_signal(number)
        _, stderr = process.communicate()
        status = process.returncode
    case = f"{how} {delay:.2f} s after the first line\n{stderr}"
    assert "Traceback" not in stderr, case
    assert status == (-number if how == "SIGKILL" else 128 + number), case

    checkpoints = tmp_path / "first" / "checkpoints"
    left = sorted(p for p in checkpoints.rglob("*") if p.is_file())
    # It may have stopped before the first checkpoint.
    again = [*data, *(["--checkpoints", *left] if left else [])]
    environment = {}
    if how == "SIGTERM":
        again, environment = as_on_valohai(tmp_path, data)
    process = start_training(tmp_path / "second", again, **environment)
    stdout, stderr = process.communicate()
    case += stderr
    assert process.returncode == 0, case
    state = training_state.find_state(left)
    if state:
        assert f"resuming after epoch {int(state.stem[-4:])} from" in stderr, case
    ours = rows(stdout)
    assert len(ours) <= len(expected), case
    for row, other in zip(ours, expected[-len(ours) :], strict=True):
        assert row == pytest.approx(other, rel=1e-6), case
    left = sorted(p.name for p in (tmp_path / "second" / "checkpoints").iterdir())
    assert len(left) == 6 and left[-1] == f"epoch-{EPOCHS:04d}.tf.index", case


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data):
    """The outputs of a training run of two epochs."""
    outputs = tmp_path_factory.mktemp("finished")
    process = start_training(outputs, [*data, "--epochs=2"])
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return outputs


@pytest.mark.slow
def test_a_finished_training_can_be_extended(tmp_path, data, finished):
    files = sorted((finished / "checkpoints").iterdir())
    # The layers that were frozen in all its epochs are trained in the last one.
    process = start_training(tmp_path, [*data, "--epochs=4", "--checkpoints", *files])
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert [row.get("epoch") for row in rows(stdout)] == [3, 4, None]
    assert (
        "the checkpoint was written with --epochs=2; this run continues with --epochs=4"
    ) in stderr
    assert re.search(r"learning rate continues at 0\.\d+ instead of 1e-05", stderr)
    assert "the pretrained layers were frozen until now" in stderr
    # And the other way round.
    files = sorted((tmp_path / "checkpoints").iterdir())
    arguments = [*data, "--epochs=3", "--checkpoints", *files]
    process = start_training(tmp_path / "again", arguments)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert "nothing is left to train: epoch 4 of 3 is done" in stderr


@pytest.mark.slow
def test_checkpoints_of_another_training_are_refused(tmp_path, data, finished):
    files = sorted((finished / "checkpoints").iterdir())
    (tmp_path / "classes.txt").write_text("circle\nsquare\ntriangle\nstar\n")
    other = ["--classes", tmp_path / "classes.txt", *data[2:]]
    for arguments, words in (
        ([*other, "--checkpoints", *files], "is this the checkpoint of another"),
        (
            [*data, "--epochs=2", "--optimizer=sgd", "--checkpoints", *files],
            "it was written with --optimizer=adamw: use the same.",
        ),
        (
            [*data, "--size=64", "--checkpoints", *files],
            "its best epoch was chosen by AP at size 96",
        ),
        (
            [*data, "--transfer=darknet", "--checkpoints", *files],
            "it was written with --transfer=no_output: use the same.",
        ),
    ):
        process = start_training(tmp_path / "outputs", arguments)
        _, stderr = process.communicate()
        assert process.returncode == 1 and words in stderr, stderr
        assert "Traceback" not in stderr
        (line,) = [each for each in stderr.splitlines() if each.startswith("error: ")]
        assert len(line) < 600, line


def write_set(folder, name, text="{}"):
    for suffix in (".tf.index", ".tf.data-00000-of-00001", ".json"):
        (folder / (name + suffix)).write_text(text)


def test_find_state_returns_the_newest_complete_state(tmp_path):
    assert training_state.find_state([]) is None
    write_set(tmp_path, "best-0009")
    write_set(tmp_path, "epoch-0009", '{"epoch": 9, "best_epoch": 9}')
    write_set(tmp_path, "epoch-0010", '{"epoch": 10, "best_epoch": 9}')
    assert find_state(tmp_path) == tmp_path / "epoch-0010.json"
    # The machine was shut down before it uploaded the newest best model.
    write_set(tmp_path, "epoch-0011", '{"epoch": 11, "best_epoch": 11}')
    assert find_state(tmp_path, may_be_partial=True) == tmp_path / "epoch-0010.json"
    with pytest.raises(InputError, match=r"epoch-0011.json: expected best-0011.tf.ind"):
        find_state(tmp_path)
    (tmp_path / "epoch-0010.tf.index").unlink()
    assert find_state(tmp_path, may_be_partial=True) == tmp_path / "epoch-0009.json"
    (tmp_path / "best-0009.tf.data-00000-of-00001").unlink()
    assert find_state(tmp_path, may_be_partial=True) is None


def find_state(folder, **options):
    return training_state.find_state(sorted(folder.iterdir()), **options)


def test_an_error_names_a_damaged_state(tmp_path):
    write_set(tmp_path, "epoch-0003", '{"epoch": 3')
    with pytest.raises(InputError, match="epoch-0003.json: expected the JSON"):
        find_state(tmp_path)


def as_state(path, **values):
    """Writes a checkpoint of variables with these values."""
    tf.train.Checkpoint(**as_variables(values)).write(
        str(path.with_name(path.stem + ".tf"))
    )


def as_variables(values):
    # A dict cannot have the slash of "kept/m" as a keyword.
    return {name.replace("__", "/"): tf.Variable(v) for name, v in values.items()}


def test_groups_that_only_one_of_two_runs_has(tmp_path):
    path = tmp_path / "epoch-0003.json"
    frozen = {"model__a.b": [1.0, 2.0], "new__m": 3.0}
    as_state(path, **frozen)
    variables = as_variables(
        {"model__a.b": [0.0, 0.0], "new__m": 0.0, "kept__m": 7.0, "loss_scale__s": 8.0}
    )
    initial = training_state.restore_state(path, variables, "")
    assert initial == {"kept", "loss_scale"}
    values = {name: variable.numpy().tolist() for name, variable in variables.items()}
    assert values == {"model/a.b": [1, 2], "new/m": 3, "kept/m": 7, "loss_scale/s": 8}

    as_state(path, **frozen, kept__m=5.0)
    del variables["kept/m"], variables["loss_scale/s"]
    assert training_state.restore_state(path, variables, "") == set()
    # A part of a group is another group.
    variables |= as_variables({"kept__v": 0.0})
    with pytest.raises(InputError) as caught:
        training_state.restore_state(path, variables, "use the same --optimizer")
    assert str(caught.value) == (
        f"{tmp_path / 'epoch-0003.tf'}: cannot resume from this checkpoint: it lacks "
        "kept/v, it has in addition kept/m; use the same --optimizer."
    )


def test_a_checkpoint_of_other_shapes(tmp_path):
    path = tmp_path / "epoch-0003.json"
    as_state(path, model__a=[1.0, 2.0])
    with pytest.raises(
        InputError, match=r"expected model/a of shape \(3,\), got \(2,\)"
    ):
        training_state.restore_state(path, as_variables({"model__a": [0.0] * 3}), "")


@pytest.mark.parametrize("suffix", [".tf.index", ".tf.data-00000-of-00001"])
@pytest.mark.parametrize("content", [b"", b"\n\nnonsense" * 9])
def test_a_damaged_checkpoint_is_one_line(tmp_path, suffix, content):
    path = tmp_path / "epoch-0003.json"
    as_state(path, model__a=[1.0, 2.0])
    (tmp_path / f"epoch-0003{suffix}").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read") as caught:
        training_state.restore_state(path, as_variables({"model__a": [0.0, 0.0]}), "")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_what_a_resumed_run_says(caplog):
    caplog.set_level("INFO", logger=logging.get_absl_logger().name)
    before = {"epochs": 3, "seed": 0, "transfer": "heads", "patience": 1}
    now = {"epochs": 30, "seed": 0, "transfer": "none", "patience": 9, "new": 1}
    changed = resuming.changed_options(before, now)
    assert changed == {"epochs": (3, 30), "transfer": ("heads", "none")}
    assert resuming.describe_refused_options(changed) == (
        "it was written with --transfer=heads: use the same"
    )
    # A checkpoint of an earlier version has no options.
    assert resuming.changed_options({}, now) == {}
    assert "the same --transfer and --optimizer" in resuming.describe_refused_options(
        {}
    )
    resuming.log_changes({}, set(), [{"epoch": 0}], 0.1)
    resuming.log_changes({}, set(), [{"epoch": 1, "learning_rate": 0.1}], 0.1)
    assert not caplog.text
    resuming.log_changes(
        {"epochs": (3, 30)}, {"kept"}, [{"epoch": 3, "learning_rate": 1e-5}], 0.001
    )
    assert [record.message for record in caplog.records] == [
        "the checkpoint was written with --epochs=3; this run continues with "
        "--epochs=30",
        "the learning rate continues at 0.001 instead of 1e-05, in the schedule of "
        "this run's epochs",
        "the pretrained layers were frozen until now: their optimizer starts anew",
    ]


def uploads(outputs, uploaded):
    """Moves read-only files out of the outputs, as a worker of Valohai does."""

    def look(_):
        for path in files(outputs):
            with suppress(FileNotFoundError):  # The step deletes files, too.
                if path.stat().st_mode & 0o222:
                    continue
                # A second upload would be another version of the file.
                assert not (uploaded / path.name).exists(), path
                shutil.move(path, uploaded / path.name)

    return watched(look, seconds=0.01)


@pytest.mark.slow
def test_checkpoints_are_uploaded_during_training(tmp_path, data, uninterrupted):
    expected, _ = uninterrupted
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "api.json").write_text("{}")
    environment = {"VH_CONFIG_DIR": str(tmp_path / "config"), "VH_JOB_ID": "exec-1"}
    uploaded = tmp_path / "first"
    uploaded.mkdir()
    arguments = [*data, "--checkpoint_epochs=2"]
    with uploads(tmp_path / "outputs", uploaded):
        process = start_training(tmp_path / "outputs", arguments, **environment)
        for line in process.stdout:
            if '"epoch": 5' in line:
                process.kill()
        process.communicate()
    names = {path.stem for path in uploaded.glob("*.json")}
    states = sorted(name for name in names if name.startswith("epoch"))
    assert states[:3] == ["epoch-0000", "epoch-0002", "epoch-0004"]
    shutil.rmtree(tmp_path / "outputs")  # The machine is shut down.
    shutil.rmtree(tmp_path / "config")

    again, environment = as_on_valohai(tmp_path, arguments)
    process = start_training(tmp_path / "outputs", again, **environment)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert f"resuming after epoch {int(states[-1][-4:])} from" in stderr
    ours = rows(stdout)
    for row, other in zip(ours, expected[-len(ours) :], strict=True):
        assert row == pytest.approx(other, rel=1e-6)
