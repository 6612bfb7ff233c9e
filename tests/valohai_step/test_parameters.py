"""Options: splitting a command line, typing values, checking them, former names."""

import json
import os
import subprocess
import sys

import pytest
from project import REPOSITORY

from valohai_step import parameters
from yolov3_tf2.errors import InputError

SPECS = {
    "epochs": {"default": 15, "min": 1, "max": 1_000_000},
    "rate": {"default": 0.5, "min": 0.0, "max": 1.0},
    "loud": {"default": False},
    "mode": {"default": "fast", "choices": ["fast", "slow"]},
    "tag": {"default": "", "optional": True},
    "size": {"default": "416"},
    "review_images": {"default": 0, "min": 0, "max": 100},
}
# A step with these parameters that prints what it has been given.
SCRIPT = f"""\"\"\"Prints what it gets.\"\"\"
import json
import valohai
from valohai_step import inputs, parameters, runtime
PARAMETERS = {SPECS!r}
INPUTS = {{"image": {{"default": [], "optional": True}}}}
with parameters.without_command_line():
    valohai.prepare(step="try", default_parameters=PARAMETERS, default_inputs=INPUTS)
def main():
    values = parameters.read_parameters(PARAMETERS, INPUTS)
    paths = inputs.input_paths("image", optional=True)
    print(json.dumps([values, [path.name for path in paths]]))
runtime.run_step(main)
"""


@pytest.fixture
def run_step(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_text(name)

    def run(*arguments, config=None):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VH_")}
        environment |= {"PYTHONPATH": str(REPOSITORY), "VH_CONFIG_DIR": str(tmp_path)}
        if config is not None:
            (tmp_path / "parameters.json").write_text(json.dumps(config))
        return subprocess.run(
            [sys.executable, "script.py", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

    return run


def read(process):
    """Returns the parameters and the names of the files that the step has printed."""
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_splitting():
    arguments = ["--image", "a", "b", "--loud", "--size=1=2", "--rate", "-1", "--tag="]
    assert parameters.split_options(arguments) == [
        ("image", ["a", "b"]),
        ("loud", []),
        ("size", ["1=2"]),
        ("rate", ["-1"]),
        ("tag", [""]),
    ]
    for arguments in (["a"], ["--image=a", "b"]):
        with pytest.raises(InputError, match="unexpected value '[ab]': expected an o"):
            parameters.split_options(arguments)


@pytest.mark.parametrize(
    ("name", "texts", "value"),
    [
        ("epochs", ["3"], 3),
        ("rate", ["1"], 1.0),
        ("loud", ["TRUE"], True),
        ("loud", ["false"], False),
        ("loud", [], True),
        ("mode", ["slow"], "slow"),
        ("tag", [""], ""),
        ("size", ["320-608"], "320-608"),
    ],
)
def test_values(name, texts, value):
    parsed = parameters.parse_value(name, SPECS[name], texts)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "texts", "message"),
    [
        ("epochs", [], "missing value for --train.epochs"),
        ("epochs", [""], "missing value for --train.epochs"),
        ("tag", [], "missing value for --train.tag"),
        ("mode", [""], "missing value for --train.mode"),
        ("loud", [""], "missing value for --train.loud"),
        ("epochs", ["3", "4"], "--train.epochs: expected one value, got 3 4."),
        ("epochs", ["3.5"], "--train.epochs: expected an integer, got '3.5'."),
        ("epochs", ["0"], "--train.epochs: expected a value from 1 to 1000000, got 0."),
        ("rate", ["fast"], "--train.rate: expected a number, got 'fast'."),
        ("rate", ["nan"], "--train.rate: expected a value from 0 to 1, got nan."),
        ("rate", ["1.5"], "--train.rate: expected a value from 0 to 1, got 1.5."),
        ("loud", ["1"], "--train.loud: expected true or false, got '1'."),
        ("mode", ["all"], "--train.mode: expected one of fast, slow, got 'all'."),
        (
            "size",
            ["100"],
            "--train.size: expected a multiple of 32, got 100; the nearest are 96 and "
            "128.",
        ),
    ],
)
def test_values_that_are_rejected(name, texts, message):
    with pytest.raises(InputError) as caught:
        parameters.parse_value(f"train.{name}", SPECS[name], texts)
    assert str(caught.value) == message


def test_the_type_of_a_value_from_a_config_file():
    for name, value in (("epochs", True), ("epochs", "3"), ("mode", 3), ("loud", 1)):
        with pytest.raises(InputError, match=f"--{name}: expected .*, got {value!r}"):
            parameters.check_value(name, SPECS[name], value)
    assert type(parameters.check_value("rate", SPECS["rate"], 1)) is float
    # The type is declared where there is no default.
    with pytest.raises(InputError, match="expected an integer, got 'x'"):
        parameters.parse_value("number", {"type": "integer"}, ["x"])


def test_defaults_config_files_and_the_command_line(run_step):
    defaults = {name: spec["default"] for name, spec in SPECS.items()}
    values, names = read(run_step())
    assert values == defaults and names == []
    values, names = read(
        run_step("--rate=1", "--loud", "--image", "a.jpg", "b.jpg", "--epochs", "4")
    )
    assert values == defaults | {"rate": 1.0, "loud": True, "epochs": 4}
    assert names == ["a.jpg", "b.jpg"]
    config = defaults | {"epochs": 7, "rate": 0, "mode": None}
    values, _ = read(run_step("--tag=x", config=config))
    assert values == defaults | {"epochs": 7, "rate": 0.0, "tag": "x"}


@pytest.mark.parametrize("arguments", ["--review_pictures=5", "--review_pictures 5"])
@pytest.mark.parametrize("config", [None, {"review_images": 9, "epochs": 1}])
def test_a_former_name(run_step, arguments, config):
    process = run_step("--image", "a.jpg", *arguments.split(), config=config)
    values, names = read(process)
    assert values["review_images"] == 5 and names == ["a.jpg"]
    assert "--review_pictures is now called --review_images" in process.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image="], "missing value for --image"),
        (["--mode="], "missing value for --mode"),
        (["--image=a.jpg", "b.jpg"], "unexpected value 'b.jpg'"),
        (["--epoch=3"], "unknown option --epoch; did you mean --epochs?"),
        (["--xyz=3"], "unknown option --xyz; expected one of --epochs, --rate, "),
        (
            ["--review_pictures=500"],
            "--review_pictures: expected a value from 0 to 100",
        ),
    ],
)
def test_command_lines_that_are_rejected(run_step, arguments, message):
    process = run_step(*arguments)
    assert process.returncode == 1
    assert f"error: {message}" in process.stderr and "Traceback" not in process.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs"], "missing value for --epochs"),
        (["--epochs=abc"], "--epochs: expected an integer, got 'abc'."),
        (["--epoch=3"], "unknown option --epoch; did you mean --epochs?"),
        (["--loud=perhaps"], "--loud: expected true or false, got 'perhaps'."),
        (["more"], "unexpected value 'more': expected an option before it."),
    ],
)
def test_a_script_prints_one_line_for_a_wrong_option(run_step, arguments, message):
    process = run_step(*arguments)
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == f"error: {message}\n"


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_help_of_a_script(run_step, option):
    process = run_step("--epochs=3", option)
    assert process.returncode == 0 and not process.stderr
    assert process.stdout.startswith("usage: python script.py [--NAME VALUE")
    assert "Prints what it gets." in process.stdout
    assert "  --epochs  (1 to 1000000; default 15)\n" in process.stdout
    assert "  --mode  (fast, slow; default fast)\n" in process.stdout
    assert "  --image  (optional)\n" in process.stdout


def test_a_former_name_in_valohais_config_file(run_step):
    process = run_step(config={"review_pictures": 7})
    assert read(process)[0]["review_images"] == 7
    assert (
        process.stderr == "WARNING: --review_pictures is now called --review_images\n"
    )


def test_a_former_and_a_present_name_together(run_step):
    process = run_step("--review_pictures=5", "--review_images=6")
    assert process.returncode == 1
    assert "--review_pictures and --review_images are the same option" in process.stderr


def test_the_last_of_repeated_options_counts(run_step):
    assert read(run_step("--epochs=0", "--epochs=5"))[0]["epochs"] == 5
