"""The inputs of the step scripts: those given, or the newest local outputs."""

import os
import sys
from pathlib import Path

import requests
import valohai
import valohai_yaml
from absl import logging

from yolov3_tf2.errors import InputError

REPOSITORY = Path(__file__).resolve().parent
# Of steps run by hand, wherever that was, and of `python pipeline.py`.
LOCAL_OUTPUTS = (Path(".valohai/outputs"), REPOSITORY / ".valohai" / "outputs")

# Of the runs whose data is drawn and whose weights are random numbers.
SAMPLE_SUFFIX = "-sample"
# Local outputs that inputs were taken from, to the name of the input.
_TAKEN = {}


def input_paths(name, optional=False, folders=False):
    """Returns the files of an input as a list of `pathlib.Path`.

    On one's own machine, a required input that was not given is taken from the newest
    local outputs of the step that feeds it in `valohai.yaml`, and the log says so.

    Args:
        name: of the input.
        optional: whether it may have no files.
        folders: whether the command line may name folders, which are then in the list.

    Raises:
        InputError: a file that was named is missing, or an input that is not optional
            has no files.
    """
    step_name = valohai.internals.global_state.step_name
    given = _given_on_command_line(name)
    if given and not any("://" in value for value in given):
        # Not by valohai-utils, which knows no folders, and takes `[1]` for a pattern.
        found = [path for value in given for path in _existing(value, step_name, name)]
        if not folders and any(path.is_dir() for path in found):
            raise InputError(
                f"input '{name}' of {step_name} is a folder; give the files in it, as "
                f"in --{name} FOLDER/*."
            )
        return found
    try:
        # Archives stay closed: the steps read them without extracting.
        found = [Path(p) for p in valohai.inputs(name).paths(process_archives=False)]
    except requests.RequestException as error:
        raise InputError(
            f"input '{name}' of {step_name}: the download failed ({error}); give a "
            f"file of your own with --{name} FILE."
        ) from error
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise _missing_files(missing, step_name, name)
    if not found and not os.environ.get("VH_JOB_ID"):
        found = _newest_local_outputs(step_name, name, optional)
    if not found and not optional:
        raise InputError(_how_to_get(step_name, name))
    return found


def _existing(value, step_name, name):
    """The files and folders that a value of the command line names."""
    paths = glob(value)
    if not paths:
        raise _missing_files([value], step_name, name)
    return paths


def _missing_files(missing, step_name, name):
    return InputError(
        f"input '{name}' of {step_name}: expected a file, got "
        f"{', '.join(map(str, missing))}, which does not exist; is the path right?"
    )


def restart_paths():
    """Returns the files that Valohai gives to an execution which it starts again.

    They are the outputs of the interrupted one, in an input of this name.
    """
    return [Path(p) for p in valohai.inputs("_restart").paths(process_archives=False)]


def input_folder(name, marker):
    """Returns the folder of an input's files.

    Raises:
        InputError: no file of it is named `marker`.
    """
    for path in input_paths(name):
        if path.name == marker:
            return path.parent
    raise InputError(
        f"input '{name}': expected a file {marker} among the files given, got none; "
        "give all files of the folder that the earlier step wrote."
    )


def read_class_names(path):
    """Reads a class file: one name a line; empty lines do not count.

    Raises:
        InputError: there is no name in it, or one twice, or it is not UTF-8.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected a text file of class names in UTF-8, got one of another "
            f"encoding ({error}); save it as UTF-8."
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"{path}: expected one class name a line, got none.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: the class names {', '.join(twice)} occur twice.")
    return names


def _given_on_command_line(name):
    """The values that follow `--name` in the arguments, up to the next option."""
    values, taking = [], False
    for argument in sys.argv[1:]:
        if argument.startswith("--"):
            option, _, value = argument[2:].partition("=")
            taking = option == name
            if taking and "=" in argument:
                values.append(value)
        elif taking:
            values.append(argument)
    return values


def glob(pattern):
    """Returns the paths that a pattern fits, or the path that it is, in order."""
    path = Path(pattern).expanduser()
    if path.exists():
        return [path]
    anchor = Path(path.anchor)
    relative = str(path.relative_to(anchor))
    return sorted(anchor.glob(relative)) if relative != "." else []


def _read_config():
    text = (REPOSITORY / "valohai.yaml").read_text(encoding="utf-8")
    return valohai_yaml.parse(text)


def _feeding_edges(config, step_name, name):
    """The edges of the pipelines in valohai.yaml that end in an input of a step."""
    return [
        edge
        for pipeline in config.pipelines.values()
        for edge in pipeline.edges
        if (edge.target_node, edge.target_key) == (step_name, name)
    ]


def _newest_local_outputs(step_name, name, optional):
    """The files of the newest local run that an edge into this input would bring.

    An optional input is taken only from where another was: it belongs to what was
    given otherwise.
    """
    runs = []
    for edge in _feeding_edges(_read_config(), step_name, name):
        for outputs in LOCAL_OUTPUTS:
            for folder in outputs.glob(f"*/{edge.source_node}"):
                paths = [p for p in folder.glob(edge.source_key) if p.is_file()]
                if paths and (folder in _TAKEN or not optional):
                    runs.append((folder, sorted(paths)))
    if not runs:
        return []
    folder, found = max(runs, key=lambda run: max(p.stat().st_mtime for p in run[1]))
    _TAKEN[folder] = name
    for other, other_name in _TAKEN.items():
        if _is_of_sample(other) != _is_of_sample(folder):
            raise InputError(
                f"{step_name}: the newest local outputs for '{name}' ({folder}) and "
                f"for '{other_name}' ({other}) do not belong together: one is of the "
                f"built-in sample. Run the steps on your data first, or give --{name}."
            )
    logging.info(
        "%s: taken from the newest local outputs, %s (%d %s)",
        name,
        os.path.commonpath([path.parent for path in found]),
        len(found),
        "file" if len(found) == 1 else "files",
    )
    return found


def _is_of_sample(folder):
    return folder.parent.name.endswith(SAMPLE_SUFFIX)


def _how_to_get(step_name, name):
    message = f"{step_name}: input '{name}' is missing. Give it with --{name} FILE"
    config = _read_config()
    for edge in _feeding_edges(config, step_name, name):
        source = config.steps[edge.source_node]
        command = source.command[-1] if source.command else ""
        script = command.split()[1].removeprefix("./")
        needs = " ".join(
            f"--{source_name} FILE"
            for source_name, spec in source.inputs.items()
            if not spec.optional
            and not spec.default
            and not _feeding_edges(config, edge.source_node, source_name)
        )
        message += f", or make it with: python {script} {needs}".rstrip()
    return message + "."
