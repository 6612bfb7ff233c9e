"""valohai.yaml: regenerated and compared, linted, and its edges checked."""

import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import valohai_yaml

STEPS = (
    "convert_superbai.py",
    "weights.py",
    "train.py",
    "detect.py",
    "upload_superbai.py",
)
PIPELINES = ("pipeline.py", "label_pipeline.py")
# These steps are given packages of their own by hand; the generator keeps that.
PACKAGES = {
    "train": "requirements-gpu.txt",
    "upload_superbai": "requirements-suite.txt",
}


@pytest.fixture
def vh(checkout, tmp_path):
    """Runs the real `vh` in the copy of the project, which is linked to nothing."""
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
    """The committed text; put back into the copy afterwards."""
    path = checkout / "valohai.yaml"
    text = path.read_text()
    yield text
    path.write_text(text)


def regenerate(vh, checkout):
    for script in STEPS:
        process = vh("yaml", "step", script)
        assert process.returncode == 0, process.stdout + process.stderr
    process = vh("yaml", "pipeline", *PIPELINES)
    assert process.returncode == 0, process.stdout + process.stderr
    return (checkout / "valohai.yaml").read_text()


def test_generating_again_changes_nothing(vh, checkout, committed):
    assert regenerate(vh, checkout) == committed


def test_generating_from_nothing_gives_the_same(vh, checkout, committed):
    (checkout / "valohai.yaml").unlink()
    text = regenerate(vh, checkout)
    for script, packages in PACKAGES.items():
        command = "    - pip install -r {}\n    - python ./" + script
        assert text.count(command.format("requirements.txt")) == 1
        text = text.replace(
            command.format("requirements.txt"), command.format(packages)
        )
    assert text == committed


def test_lint(vh):
    process = vh("lint", "valohai.yaml")
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.fixture
def config(checkout):
    return valohai_yaml.parse((checkout / "valohai.yaml").read_text())


def test_everything_is_described(config):
    for step in config.steps.values():
        for thing in (*step.parameters.values(), *step.inputs.values()):
            assert thing.description, f"{step.name}: {thing.name}"


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


@pytest.mark.slow
def test_edges_start_at_files_that_a_step_writes(config, sample_run):
    _, run = sample_run
    for edge in (e for p in config.pipelines.values() for e in p.edges):
        source = run / edge.source_node
        written = [p.relative_to(source).as_posix() for p in source.rglob("*.*")]
        assert fnmatch.filter(written, edge.source_key), edge.source


def test_the_image_and_the_packages_are_those_of_the_project(config, checkout):
    for step in config.steps.values():
        assert step.image == "python:3.11-slim"
        install = step.command[0].split()
        assert install[:3] == ["pip", "install", "-r"]
        assert (checkout / install[3]).is_file()
