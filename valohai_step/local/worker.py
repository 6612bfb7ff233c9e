"""Runs one step on this machine as a Valohai worker does.

The step is a process with the folders, config files and environment of a worker. Its
inputs contain the files that the edges of the pipeline bring. See `runner.py` for the
folders.
"""

import contextlib
import fnmatch
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import valohai_yaml
import yaml

from valohai_step import downloads
from valohai_step.inputs import glob_paths, is_address, link_or_copy
from valohai_step.local_outputs import REPOSITORY
from yolov3_tf2.errors import InputError, is_write_error

STOP_SECONDS = 60  # How long to wait for a step that was told to stop.


@dataclass
class Node:
    """One step of a run.

    Attributes:
        name: its name in the pipeline.
        step: the `valohai_yaml.objs.Step` that it runs.
        parameters: typed values by name; the step's defaults where none were given.
        inputs: lists of paths or URLs by name; likewise.
        actions: list of `valohai_yaml.objs.pipelines.node_action.NodeAction`.
        config: contents of further config files by name; they replace those that a
            worker writes.
        environment: further environment variables by name.
        files: the files of its inputs, see `fetch_files`.
        metadata: list of the JSON objects that it printed.
        process: its process, None before it runs; the leader of a process group.
    """

    name: str
    step: valohai_yaml.objs.Step
    parameters: dict
    inputs: dict[str, list[str]]
    actions: list = field(default_factory=list)
    config: dict[str, object] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[tuple[Path, str]]] = field(default_factory=dict)
    metadata: list[dict] = field(default_factory=list)
    process: subprocess.Popen | None = None


def run_node(state, run, node, edges, repository=None):
    """Runs one step to its end; returns its exit status.

    Args:
        state: the folder of all runs, see `runner.py`.
        run: the name of this run.
        node: a `Node`.
        edges: of its pipeline.
        repository: the folder of the step's script, by default that of this project.
    """
    folder = state / "runs" / run / node.name
    try:
        return _run_in_folder(folder, state, run, node, edges, repository or REPOSITORY)
    except OSError as error:
        if error.filename or not is_write_error(error):
            raise
        raise OSError(
            f"{folder}: inputs, config or log of this step cannot be written: "
            f"{error.strerror}; free space on this disk."
        ) from error


def _run_in_folder(folder, state, run, node, edges, repository):
    """Runs one step in its folder, see `run_node`."""
    outputs = state / "outputs" / run / node.name
    for path in (folder / "config", folder / "inputs", outputs):
        path.mkdir(parents=True)
    files = {name: list(pairs) for name, pairs in node.files.items()}
    for edge in edges:
        if edge.target_node == node.name:
            source = state / "outputs" / run / edge.source_node
            files[edge.target_key] += _edge_files(source, edge)
    inputs = {}
    for name, pairs in files.items():
        linked = [_link(*pair, folder / "inputs" / name) for pair in pairs]
        if linked:
            inputs[name] = {"files": linked}
    ids = {key: str(uuid.uuid4()) for key in ("execution", "project", "pipeline")}
    config = {
        "inputs": inputs,
        "parameters": node.parameters,
        "execution": {
            "valohai.execution-id": ids["execution"],
            "valohai.execution-step": node.step.name,
            "valohai.pipeline-id": ids["pipeline"],
        },
        "runtime": {},
    }
    _write_config(folder / "config", config | node.config)
    environment = {
        **os.environ,
        **{
            name: str(variable.default or "")
            for name, variable in node.step.environment_variables.items()
        },
        **node.environment,
        "VH_CONFIG_DIR": str(folder / "config"),
        "VH_INPUTS_DIR": str(folder / "inputs"),
        "VH_OUTPUTS_DIR": str(outputs),
        "VH_REPOSITORY_DIR": str(repository),
        "VH_JOB_ID": f"exec-{ids['execution']}",
        "VH_EXECUTION_ID": ids["execution"],
        "VH_PROJECT_ID": ids["project"],
        "VH_PIPELINE_ID": ids["pipeline"],
        "VH_PIPELINE_NODE_ID": str(uuid.uuid4()),
        # The step's command runs the same Python as this process.
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        ),
        "PYTHONUNBUFFERED": "1",
    }
    # A worker installs packages into a new container; here the user has done that.
    commands = [
        command
        for command in node.step.build_command(node.parameters)
        if not command.startswith("pip install")
    ]
    return _stream(" && ".join(commands), repository, environment, folder, node)


def _stream(command, repository, environment, folder, node):
    """Runs a shell command; returns its exit status.

    Its lines go to the terminal and to `log.txt`; JSON objects also to the metadata.
    """
    with (
        (folder / "log.txt").open("w", encoding="utf-8", buffering=1) as log,
        subprocess.Popen(
            command,
            shell=True,
            cwd=repository,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        node.process = process
        try:
            for line in process.stdout:
                log.write(line)
                metadata = _parse_metadata(line)
                if metadata is not None:
                    node.metadata.append(metadata)
                    line = f"{format_metadata(metadata)}\n"
                if line.strip():
                    print(f"    {line}", end="", flush=True)
        except BaseException:
            # Interrupted: the step is in a separate process group; stop it too.
            os.killpg(process.pid, signal.SIGTERM)
            _wait_for_group(process)
            raise
    text = "".join(json.dumps(m, ensure_ascii=False) + "\n" for m in node.metadata)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return process.returncode


def _wait_for_group(process):
    """Waits until all processes of a group have ended, as long as a step may clean up.

    The shell, which leads the group, ends before the step that it has started.
    """
    process.wait()
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        # As the first process of a container, this one inherits the shell's children.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-process.pid, os.WNOHANG)
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


def _parse_metadata(line):
    """Returns the dict of a line that is one JSON object, None for any other line."""
    if not line.startswith("{"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None


def fetch_files(state, node, name):
    """Returns the files of an input that no edge brings; downloads URLs once.

    Returns:
        A list of pairs: the path of a file, and its name in the input's folder. The
        name includes the subfolders where a folder was given.

    Raises:
        InputError: a file is missing or a download failed.
    """
    option = f"--{node.name}.{name}"
    files = []
    for value in node.inputs[name]:
        if is_address(value):
            path = downloads.download(value, state / "downloads", f"{option}=FILE")
            files.append((path, path.name))
            continue
        matches = glob_paths(value)
        paths = [(path, path.name) for path in matches if path.is_file()]
        for folder in matches:
            if folder.is_dir():
                # The name of a folder is kept only where there are several.
                base = folder if len(matches) == 1 else folder.parent
                paths += [
                    (path, path.relative_to(base).as_posix())
                    for path in sorted(folder.rglob("*"))
                    if path.is_file()
                ]
        if matches and not paths:
            raise InputError(
                f"{option}: expected files in {value}, got an empty folder."
            )
        if not paths:
            raise InputError(
                f"{option}: expected a file, got {value}, which does not exist; is the "
                "path right?"
            )
        files += paths
    return files


def _edge_files(outputs, edge):
    """Returns the files of a step's outputs that an edge brings, see `fetch_files`.

    Raises:
        InputError: there are none.
    """
    paths = sorted(
        path
        for path in outputs.rglob("*")
        if path.is_file()
        and fnmatch.fnmatch(path.relative_to(outputs).as_posix(), edge.source_key)
        and not path.name.startswith(".")
    )
    if not paths:
        raise InputError(
            f"input '{edge.target_key}' of {edge.target_node}: expected files "
            f"{edge.source_key} among the outputs of {edge.source_node}, got none."
        )
    return [(path, path.name) for path in paths]


def _link(path, name, folder):
    """Links a file into an input's folder; returns its entry for inputs.json."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise InputError(
            f"input '{folder.name}': expected files of different names, got two named "
            f"{name}; one of them is {path}."
        )
    link_or_copy(path, target)
    return {
        "name": name,
        "path": str(target),
        "size": target.stat().st_size,
        "uri": path.resolve().as_uri(),
        "metadata": [],
        "checksums": {},
    }


def _write_config(folder, contents):
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def format_metadata(metadata):
    """Returns a line of metadata in a readable form.

    Example:
        >>> format_metadata({"epoch": 1, "AP": 0.123456})
        'epoch 1, AP 0.1235'
    """
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in metadata.items()
    )


def say(text):
    """Prints a line immediately, also where the output is a file."""
    print(text, flush=True)
