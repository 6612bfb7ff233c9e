"""Inputs that were not given, taken from the latest outputs of local runs.

On Valohai the edges of a pipeline bring the outputs of one step to the inputs of the
next. Where a step is run by hand, the same edges say which local outputs it takes.
"""

import os
from pathlib import Path

import valohai_yaml
import yaml
from absl import logging

from yolov3_tf2.errors import InputError, shorten

# The folder of the step scripts. The rest of the package takes it from here.
REPOSITORY = Path(__file__).resolve().parents[1]
# What local runs and downloads leave on this machine.
STATE = REPOSITORY / ".valohai"
# valohai-utils writes the outputs of a step below the current folder.
OUTPUTS = (Path(".valohai/outputs"), STATE / "outputs")

# Ends the names of runs whose data is drawn and whose weights are random numbers.
SAMPLE_SUFFIX = "-sample"
# The folders that this process has taken inputs from, by the names of the inputs.
_folder_by_input = {}


def read_config():
    """Returns the `valohai_yaml.objs.Config` of valohai.yaml.

    Raises:
        InputError: the file is missing or invalid.
    """
    path = REPOSITORY / "valohai.yaml"
    try:
        return valohai_yaml.parse(path.read_text(encoding="utf-8"))
    except (
        OSError,
        UnicodeDecodeError,
        yaml.YAMLError,
        valohai_yaml.ValidationErrors,
    ) as error:
        raise InputError(
            f"{path}: expected the definitions of steps and pipelines, got "
            f"{shorten(error)}; write the file again with python -m "
            "valohai_step.write_yaml."
        ) from error


def find_newest_outputs(step_name, input_name, optional):
    """Returns the files that an edge into an input brings from the latest local run.

    Args:
        step_name: of the step that has the input.
        input_name: of the input.
        optional: whether the input may stay empty. It is then taken only from a run
            that all required inputs from the same step were taken from, as it belongs
            to these: never a validation split of another run than `train` and `test`.

    Returns:
        A list of `pathlib.Path`, empty where there are no such outputs.

    Raises:
        InputError: the files and those of another input do not belong together.
    """
    runs, config = [], read_config()
    for edge in _feeding_edges(config, step_name, input_name):
        required = _required_inputs(config, step_name, edge.source_node)
        taken = [_folder_by_input.get(name) for name in required]
        for outputs in OUTPUTS:
            for folder in outputs.glob(f"*/{edge.source_node}"):
                paths = [p for p in folder.glob(edge.source_key) if p.is_file()]
                if paths and (not optional or (taken and set(taken) == {folder})):
                    runs.append((folder, sorted(paths)))
    if not runs:
        return []
    folder, paths = max(runs, key=lambda run: max(p.stat().st_mtime for p in run[1]))
    _folder_by_input[input_name] = folder
    for other_name, other in _folder_by_input.items():
        if _is_of_sample(other) != _is_of_sample(folder):
            raise InputError(
                f"inputs of {step_name}: the latest local outputs for '{input_name}' "
                f"({folder}) and for '{other_name}' ({other}) do not belong together: "
                "one of them is from the built-in sample; run the earlier steps on "
                f"your data first, or give --{input_name}."
            )
    logging.info(
        "%s: taken from the latest local outputs, %s (%d %s)",
        input_name,
        os.path.commonpath([path.parent for path in paths]),
        len(paths),
        "file" if len(paths) == 1 else "files",
    )
    return paths


def describe_missing_input(step_name, input_name):
    """Returns an error message with the command that makes a missing input."""
    message = (
        f"input '{input_name}' of {step_name} is missing; give it with "
        f"--{input_name} FILE"
    )
    config = read_config()
    for edge in _feeding_edges(config, step_name, input_name):
        source = config.steps[edge.source_node]
        command = source.command[-1] if source.command else ""
        script = command.split()[1].removeprefix("./")
        required = " ".join(
            f"--{source_name} FILE"
            for source_name, spec in source.inputs.items()
            if not spec.optional
            and not spec.default
            and not _feeding_edges(config, edge.source_node, source_name)
        )
        message += f", or make it with: python {script} {required}".rstrip()
    return message + "."


def _feeding_edges(config, step_name, input_name):
    """Returns the edges of all pipelines that end in an input of a step."""
    return [
        edge
        for pipeline in config.pipelines.values()
        for edge in pipeline.edges
        if (edge.target_node, edge.target_key) == (step_name, input_name)
    ]


def _required_inputs(config, step_name, source_node):
    """Returns the inputs of a step that need files and that edges from a node feed."""
    return [
        name
        for name, spec in config.steps[step_name].inputs.items()
        if not spec.optional
        and any(
            edge.source_node == source_node
            for edge in _feeding_edges(config, step_name, name)
        )
    ]


def _is_of_sample(folder):
    return folder.parent.name.endswith(SAMPLE_SUFFIX)
