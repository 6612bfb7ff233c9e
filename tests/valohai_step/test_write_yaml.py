"""valohai.yaml: generated from the scripts, linted, its edges and tasks checked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import valohai_yaml

from valohai_step import write_yaml


@pytest.fixture
def vh(checkout, tmp_path):
    """Runs the real `vh` in the copy of the project, without a server."""
    link = {str(checkout.resolve()): {"id": "0" * 32, "name": "local"}}
    (tmp_path / "config.json").write_text(json.dumps({"links": link}))

    def run(*arguments):
        return subprocess.run(
            [str(Path(sys.executable).with_name("vh")), *arguments],
            cwd=checkout,
            env={**os.environ, "VALOHAI_CONFIG_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def committed(checkout):
    """The committed text, which is restored in the copy afterwards."""
    path = checkout / "valohai.yaml"
    text = path.read_text()
    yield text
    path.write_text(text)


def write(checkout, *arguments):
    command = [sys.executable, "-m", "valohai_step.write_yaml", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True)


def test_the_committed_files_are_up_to_date(checkout, committed):
    process = write(checkout, "--check")
    assert process.returncode == 0, process.stdout + process.stderr
    (checkout / "valohai.yaml").unlink()
    assert write(checkout, "--check").returncode == 1
    assert not (checkout / "valohai.yaml").exists()
    process = write(checkout)
    assert process.stdout == "valohai.yaml written\n" and not process.returncode
    assert (checkout / "valohai.yaml").read_text() == committed


def test_a_changed_parameter_is_written(checkout, committed):
    script, page = checkout / "train.py", checkout / "docs" / "parameters.md"
    texts = {path: path.read_text() for path in (script, page)}
    script.write_text(texts[script].replace('"default": 15,', '"default": 16,'))
    try:
        assert "valohai.yaml: out of date" in write(checkout, "--check").stdout
        assert write(checkout).stdout.count("written") == 2
        written = valohai_yaml.parse((checkout / "valohai.yaml").read_text())
        assert written.steps["train"].parameters["epochs"].default == 16
        (shared,) = (
            p
            for p in written.pipelines["train-superbai"].parameters
            if p.name == "epochs"
        )
        assert shared.default == 16
        assert "| `epochs` | Training | `16` |" in page.read_text()
    finally:
        for path, text in texts.items():
            path.write_text(text)


def test_vh_yaml_changes_nothing_but_the_tasks(vh, checkout, committed):
    for script in write_yaml.STEPS:
        process = vh("yaml", "step", script)
        assert process.returncode == 0, process.stdout + process.stderr
        assert "already up-to-date" in process.stdout + process.stderr
    assert (checkout / "valohai.yaml").read_text() == committed
    process = vh("yaml", "pipeline", *write_yaml.PIPELINES)
    assert process.returncode == 0, process.stdout + process.stderr
    written = valohai_yaml.parse((checkout / "valohai.yaml").read_text())
    expected = valohai_yaml.parse(committed)
    assert set(expected.tasks) == {"learning-rate-sweep", "train-distributed"}
    expected.tasks = {}
    assert written.serialize() == expected.serialize()
    assert write(checkout).returncode == 0
    assert (checkout / "valohai.yaml").read_text() == committed


def test_lint(vh):
    process = vh("lint", "valohai.yaml")
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.fixture
def config(checkout):
    return valohai_yaml.parse((checkout / "valohai.yaml").read_text())


def test_everything_is_described(config):
    for step in config.steps.values():
        assert step.description.endswith("."), step.name
        for thing in (*step.parameters.values(), *step.inputs.values()):
            assert thing.description, f"{step.name}: {thing.name}"
        for parameter in step.parameters.values():
            where = f"{step.name}: {parameter.name}"
            assert parameter.category, where
            if parameter.type in ("integer", "float"):
                assert parameter.min <= parameter.default <= parameter.max, where
            # A web form asks for every parameter that is not optional.
            assert parameter.optional or parameter.default != "" or "project" in where
    for task in config.tasks.values():
        assert task.description.endswith("."), task.name


def test_the_parameters_of_a_pipeline_are_those_of_its_nodes(config):
    pipeline = config.pipelines["train-superbai"]
    names = [parameter.name for parameter in pipeline.parameters]
    assert names == ["model", "epochs", "size", "precision", "min_ap50"]
    for shared in pipeline.parameters:
        for target in shared.targets:
            node, kind, name = target.split(".")
            assert (kind, name) == ("parameters", shared.name)
            of_step = config.steps[pipeline.node_map[node].step].parameters[name]
            assert (of_step.default, of_step.type) == (
                shared.default,
                {int: "integer", float: "float", str: "string"}[type(shared.default)],
            )


def test_tasks_set_parameters_of_their_steps(config):
    for task in config.tasks.values():
        for parameter in task.parameters:
            of_step = config.steps[task.step].parameters[parameter.name]
            for item in parameter.rules["items"]:
                assert of_step.min <= item <= of_step.max


def test_edges_end_in_inputs_and_every_required_input_has_a_source(config):
    targets = set()
    for edge in (e for p in config.pipelines.values() for e in p.edges):
        assert edge.target_key in config.steps[edge.target_node].inputs
        targets.add((edge.target_node, edge.target_key))
    for step in config.steps.values():
        for spec in step.inputs.values():
            if not spec.optional and not spec.default:
                is_users = step.name == "convert-superbai"
                assert is_users or (step.name, spec.name) in targets


def test_the_image_and_the_packages_are_those_of_the_project(config, checkout):
    for step in config.steps.values():
        assert step.image == "python:3.11-slim"
        install = step.command[0].split()
        assert install[:2] == ["pip", "install"]
        assert (checkout / install[install.index("-r") + 1]).is_file()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--chek", "unknown option --chek; did you mean --check?"),
        ("--check=1", "--check: expected true or false, got '1'."),
        ("--check=", "missing value for --check"),
        ("now", "unexpected value 'now': expected an option before it."),
    ],
)
def test_wrong_options_are_one_line(checkout, argument, message):
    process = write(checkout, argument)
    assert process.returncode == 1
    assert (process.stdout, process.stderr) == ("", f"error: {message}\n")


def test_help(checkout):
    process = write(checkout, "--help")
    assert process.returncode == 0 and "--check" in process.stdout
