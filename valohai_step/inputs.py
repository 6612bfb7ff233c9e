"""The inputs of the step scripts: those given, or the newest local outputs."""

import atexit
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import valohai
import valohai_yaml
from absl import logging

from valohai_step import downloads
from yolov3_tf2.errors import InputError

# The folder of the step scripts: the one place that says where the project lies.
REPOSITORY = Path(__file__).resolve().parents[1]
# Of steps run by hand, wherever that was, and of `python pipeline.py`.
LOCAL_OUTPUTS = (Path(".valohai/outputs"), REPOSITORY / ".valohai" / "outputs")

DOWNLOADS = REPOSITORY / ".valohai" / "downloads"
NAMED_FILES = 3  # That a line of the log names.

# Of the runs whose data is drawn and whose weights are random numbers.
SAMPLE_SUFFIX = "-sample"
# Local outputs that inputs were taken from, to the name of the input.
_TAKEN = {}


def input_paths(name, optional=False, folders=False):
    """Returns the files of an input as a list of `pathlib.Path`.

    On one's own machine, a required input that was not given is taken from the newest
    local outputs of the step that feeds it in `valohai.yaml`. The log says what was
    taken.

    Args:
        name: of the input.
        optional: whether it may have no files.
        folders: whether the command line may name folders, which are then in the list,
            as archives are. Without it the files in archives are.

    Raises:
        InputError: a file that was named is missing or cannot be downloaded, or an
            input that is not optional has no files.
    """
    step_name = valohai.internals.global_state.step_name
    # Not by valohai-utils, which knows no folders, and takes `[1]` for a pattern.
    found = [
        path
        for value in _given_on_command_line(name)
        for path in _given(value, step_name, name)
    ]
    if not folders and any(path.is_dir() for path in found):
        raise InputError(
            f"input '{name}' of {step_name} is a folder; give the files in it, as in "
            f"--{name} FOLDER/*."
        )
    if not found:
        # Archives stay closed: some steps read them without extracting.
        paths = valohai.inputs(name).paths(process_archives=False)
        found = [Path(path) for path in paths]
        missing = [path for path in found if not path.is_file()]
        if missing:
            raise _missing_files(missing, step_name, name)
    if found:
        logging.info("%s: %s", name, _describe(found))
    elif not os.environ.get("VH_JOB_ID"):
        found = _newest_local_outputs(step_name, name, optional)
    if not folders:
        found = [file for path in found for file in _files_in(path)]
    if not found and not optional:
        raise InputError(_how_to_get(step_name, name))
    return found


def _given(value, step_name, name):
    """The files and folders that a value of the command line stands for."""
    if "://" in value:
        return [downloads.download(value, DOWNLOADS, f"--{name} FILE")]
    return _existing(value, step_name, name)


def _describe(paths):
    """The names of files and folders and the size of all, in one line."""
    shown = ", ".join(path.name for path in paths[:NAMED_FILES])
    if len(paths) > NAMED_FILES:
        shown += f" and {len(paths) - NAMED_FILES} more"
    size = sum(path.stat().st_size for path in paths if path.is_file())
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{shown}, {size:.{0 if unit == 'bytes' else 1}f} {unit}"


def _files_in(path):
    """The files of an archive, extracted for as long as this process runs.

    Of any other file, that file.

    Raises:
        InputError: the archive is damaged.
    """
    if not path.name.endswith((".zip", ".tar", ".tar.gz", ".tgz")):
        return [path]
    folder = tempfile.mkdtemp(prefix="input-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Nothing in it may lie outside of it; zips are never extracted so.
    options = {} if path.suffix == ".zip" else {"filter": "data"}
    try:
        shutil.unpack_archive(path, folder, **options)
    except (shutil.ReadError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{path}: cannot be unpacked ({error}); was it downloaded whole?"
        ) from error
    return [
        file
        for file in sorted(Path(folder).rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    ]


def _existing(value, step_name, name):
    paths = glob_paths(value)
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


def glob_paths(pattern):
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
