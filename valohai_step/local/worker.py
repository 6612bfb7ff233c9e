"""Runs one step on this machine as a Valohai worker would.

The step is a process with the folders, config files and environment of a worker; what
the edges of the pipeline name lies in its inputs. See `runner.py` for the folders.
"""

import fnmatch
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import valohai_yaml
import yaml

from valohai_step import downloads
from valohai_step.inputs import REPOSITORY, glob_paths
from yolov3_tf2.errors import InputError


@dataclass
class Node:
    """One step of a run.

    Attributes:
        name: its name in the pipeline.
        step: the `valohai_yaml.objs.Step` that it runs.
        parameters: values by name, typed; those given and the step's defaults.
        inputs: lists of paths or URLs by name; those given and the step's defaults.
        actions: list of `valohai_yaml.objs.pipelines.node_action.NodeAction`.
        config: config files that it gets besides a worker's usual ones, or in place of
            them, by their names.
        environment: environment variables besides the step's own, by their names.
        files: the files of its inputs, see `fetch`.
        metadata: the JSON lines that it printed.
        process: its process, None before it runs; the first of a group of its own.
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
        run: the name of this one.
        node: a `Node`.
        edges: of its pipeline.
        repository: the folder of the step's script; this project's without it.
    """
    repository = repository or REPOSITORY
    folder = state / "runs" / run / node.name
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
        # `python` of the step's command is the one that runs this.
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        ),
        "PYTHONUNBUFFERED": "1",
    }
    # What a worker installs into a fresh container is the user's to install here.
    commands = [
        command
        for command in node.step.build_command(node.parameters)
        if not command.startswith("pip install")
    ]
    return _stream(" && ".join(commands), repository, environment, folder, node)


def _stream(command, repository, environment, folder, node):
    """Runs a shell command; its lines go to the terminal, a log and the metadata."""
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
                metadata = _metadata(line)
                if metadata is not None:
                    node.metadata.append(metadata)
                    line = f"{summary(metadata)}\n"
                if line.strip():
                    print(f"    {line}", end="", flush=True)
        except BaseException:
            # Interrupted: the step, a group of processes of its own, ends with it.
            os.killpg(process.pid, signal.SIGTERM)
            raise
    text = "".join(json.dumps(m, ensure_ascii=False) + "\n" for m in node.metadata)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return process.returncode


def _metadata(line):
    """The dict of a line that is one JSON object, None for any other."""
    if not line.startswith("{"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None


def fetch_files(state, node, name):
    """Returns the files of a node's own input; URLs are downloaded once.

    Returns:
        A list of pairs: the path of a file, and its name in the input's folder, which
        has the folders that it lies in below one that was given.

    Raises:
        InputError: a file is missing or a download failed.
    """
    found = []
    for value in node.inputs[name]:
        if "://" in value:
            path = downloads.download(
                value, state / "downloads", f"--{node.name}.{name}=FILE"
            )
            found.append((path, path.name))
            continue
        matches = glob_paths(value)
        paths = [(path, path.name) for path in matches if path.is_file()]
        for folder in matches:
            if folder.is_dir():
                # One folder stands for what is in it, of several each keeps its name.
                base = folder if len(matches) == 1 else folder.parent
                paths += [
                    (path, path.relative_to(base).as_posix())
                    for path in sorted(folder.rglob("*"))
                    if path.is_file()
                ]
        if matches and not paths:
            raise InputError(
                f"--{node.name}.{name}: the folder {value} holds no files."
            )
        if not paths:
            raise InputError(
                f"--{node.name}.{name}: expected a file, got {value}, which does not "
                "exist; is the path right?"
            )
        found += paths
    return found


def _edge_files(outputs, edge):
    """The files below a step's outputs that an edge carries, see `fetch`.

    Raises:
        InputError: there are none.
    """
    found = sorted(
        path
        for path in outputs.rglob("*")
        if path.is_file()
        and fnmatch.fnmatch(path.relative_to(outputs).as_posix(), edge.source_key)
        and not path.name.startswith(".")
    )
    if not found:
        raise InputError(
            f"{edge.source_node} wrote nothing that {edge.source_key} fits, which "
            f"{edge.target_node} needs as its input '{edge.target_key}'."
        )
    return [(path, path.name) for path in found]


def _link(path, name, folder):
    """Puts a file into an input's folder; returns its entry in inputs.json."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise InputError(
            f"two files of the input '{folder.name}' are named {name}: {path} and "
            "another; expected different names."
        )
    try:
        os.link(path.resolve(), target)
    except OSError:
        # Another disk, or one without links.
        shutil.copyfile(path, target)
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


def summary(metadata):
    """Returns a line of metadata as a person reads it."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in metadata.items()
    )


def say(text):
    """Prints a line at once, though the output may be a file."""
    print(text, flush=True)
