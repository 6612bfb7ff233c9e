"""Runs a pipeline of `valohai.yaml` on this machine, step by step, as Valohai would.

Each step is a process with the folders, config files and environment that a Valohai
worker gives it; what an edge of the pipeline names travels along it. Runs lie in
`.valohai/outputs/<run>/<node>/` (what a step wrote) and `.valohai/runs/<run>/<node>/`
(its inputs, its config files, its log and its metadata).
"""

import fnmatch
import glob
import graphlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import valohai_yaml
import yaml
from tqdm import tqdm

from yolov3_tf2.errors import InputError

REPOSITORY = Path(__file__).resolve().parent
STATE = REPOSITORY / ".valohai"

# Without images and labels the pipeline runs on a drawn sample, small enough for a
# laptop; a value given on the command line goes before these.
SAMPLE_FILES = {
    ("convert-superbai", "images"): "images.zip",
    ("convert-superbai", "labels"): "labels.zip",
    ("weights", "weights"): "yolov3-tiny.weights",
}
SAMPLE_PARAMETERS = {
    ("weights", "model"): "yolov3-tiny",
    ("train", "transfer"): "none",
    ("train", "size"): "160",
    ("train", "epochs"): "7",
    ("train", "batch_size"): "16",
    ("detect", "size"): "160",
}


@dataclass
class Node:
    """One step of a run.

    Attributes:
        name: its name in the pipeline.
        step: the `valohai_yaml.objs.Step` that it runs.
        parameters: values by name, typed; those given and the step's defaults.
        inputs: lists of paths or URLs by name; those given and the step's defaults.
        metadata: the JSON lines that it printed.
    """

    name: str
    step: valohai_yaml.objs.Step
    parameters: dict
    inputs: dict[str, list[str]]
    metadata: list[dict] = field(default_factory=list)


def run_command_line(pipeline_name, arguments):
    """Runs a pipeline with `--NODE.NAME=value` arguments; returns the exit status."""
    try:
        return _run(pipeline_name, arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(pipeline_name, arguments):
    text = (REPOSITORY / "valohai.yaml").read_text(encoding="utf-8")
    config = valohai_yaml.parse(text)
    pipeline = config.pipelines[pipeline_name]
    given = parse_arguments(arguments)
    if not any(("convert-superbai", name) in given for name in ("images", "labels")):
        given = _sample() | given
    nodes = _build_nodes(config, pipeline, given)
    sources = {
        name: {e.source_node for e in pipeline.edges if e.target_node == name}
        for name in nodes
    }
    order = list(graphlib.TopologicalSorter(sources).static_order())

    # The form of valohai-utils' own local runs, so that steps find these outputs too.
    run = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    start = time.monotonic()
    for number, name in enumerate(order, start=1):
        _say(f"[{number}/{len(order)}] {name}: {_describe(nodes[name])}")
        step_start = time.monotonic()
        status = _run_node(run, nodes[name], pipeline.edges)
        seconds = time.monotonic() - step_start
        if status:
            _say(
                f"[{number}/{len(order)}] {name} failed after {seconds:.0f} s with "
                f"exit status {status}; its messages stand above and in "
                f"{_show(STATE / 'runs' / run / name / 'log.txt')}"
            )
            if number > 1:
                _say(f"what ran before it: {_show(STATE / 'outputs' / run)}")
            return 1
        outputs = STATE / "outputs" / run / name
        _say(f"[{number}/{len(order)}] {name} done in {seconds:.0f} s: {_show(outputs)}")
    _say(f"{pipeline_name} done in {time.monotonic() - start:.0f} s")
    for name in order:
        if nodes[name].metadata:
            _say(f"  {name}: {_summary(nodes[name].metadata[-1])}")
    return 0


def parse_arguments(arguments):
    """Parses `--NODE.NAME=value`; returns lists of values by (node, name).

    An argument that is given twice has both values.

    Raises:
        InputError: an argument is not of that form.
    """
    given = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        node, dot, name = key.removeprefix("--").partition(".")
        if not (argument.startswith("--") and equals and dot and node and name):
            raise InputError(
                f"{argument}: expected --NODE.NAME=value, as in --train.epochs=20 or "
                "--convert-superbai.images=images.zip."
            )
        given.setdefault((node, name), []).append(value)
    return given


def _sample():
    """Draws the built-in sample, once; returns its inputs and parameters."""
    folder = STATE / "sample"
    if not folder.is_dir():
        _say(f"drawing the built-in sample: {_show(folder)}")
        partial = folder.with_name("sample.partial")
        shutil.rmtree(partial, ignore_errors=True)
        command = [sys.executable, str(REPOSITORY / "samples.py"), str(partial)]
        subprocess.run(command, check=True, cwd=REPOSITORY)
        partial.rename(folder)
    else:
        _say(f"no images and labels given: the built-in sample, {_show(folder)}")
    files = {key: [str(folder / name)] for key, name in SAMPLE_FILES.items()}
    return files | {key: [value] for key, value in SAMPLE_PARAMETERS.items()}


def _build_nodes(config, pipeline, given):
    """Returns the pipeline's nodes by name, with their parameters and inputs.

    Raises:
        InputError: `given` names what is not there, or a required input is missing.
    """
    nodes = {}
    for node in pipeline.nodes:
        step = config.steps[node.step]
        parameters = {
            name: parameter.default
            for name, parameter in step.parameters.items()
            if parameter.default is not None
        }
        inputs = {}
        for name, spec in step.inputs.items():
            default = spec.default or []
            inputs[name] = [default] if isinstance(default, str) else list(default)
        nodes[node.name] = Node(node.name, step, parameters, inputs)
    for (node_name, name), values in given.items():
        node = nodes.get(node_name)
        if node is None:
            raise InputError(
                f"--{node_name}.{name}: the pipeline has no node '{node_name}' "
                f"(it has: {', '.join(nodes)})."
            )
        if name in node.inputs:
            node.inputs[name] = values
        elif name in node.step.parameters:
            node.parameters[name] = _typed(
                node.step.parameters[name], values[-1], f"--{node_name}.{name}"
            )
        else:
            known = [*node.step.parameters, *node.inputs]
            raise InputError(
                f"--{node_name}.{name}: the step has no such parameter or input "
                f"(it has: {', '.join(known)})."
            )
    fed = {(edge.target_node, edge.target_key) for edge in pipeline.edges}
    for node in nodes.values():
        for name, spec in node.step.inputs.items():
            is_there = node.inputs[name] or spec.optional or (node.name, name) in fed
            if not is_there:
                raise InputError(
                    f"the input '{name}' of {node.name} is missing; give "
                    f"--{node.name}.{name}=FILE."
                )
    return nodes


def _typed(parameter, text, where):
    """Turns the text of a command line into the type that a parameter has."""
    kinds = {"integer": int, "float": float, "string": str}
    if parameter.type == "flag":
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    else:
        try:
            return kinds[parameter.type](text)
        except ValueError:
            pass  # Said below, in one form for all types.
    raise InputError(f"{where}: expected {parameter.type}, got {text!r}.")


def _run_node(run, node, edges):
    """Runs one step to its end; returns its exit status."""
    folder = STATE / "runs" / run / node.name
    outputs = STATE / "outputs" / run / node.name
    for path in (folder / "config", folder / "inputs", outputs):
        path.mkdir(parents=True)
    files = {name: _fetch(node, name) for name in node.inputs}
    for edge in edges:
        if edge.target_node == node.name:
            files[edge.target_key] = []  # Edges replace what an input has of its own.
    for edge in edges:
        if edge.target_node == node.name:
            source = STATE / "outputs" / run / edge.source_node
            files[edge.target_key] += _edge_files(source, edge)
    inputs = {}
    for name, paths in files.items():
        linked = [_link(path, folder / "inputs" / name) for path in paths]
        if linked:
            inputs[name] = {"files": linked}
    ids = {key: str(uuid.uuid4()) for key in ("execution", "project", "pipeline")}
    _write_config(
        folder / "config",
        inputs=inputs,
        parameters=node.parameters,
        execution={
            "valohai.execution-id": ids["execution"],
            "valohai.execution-step": node.step.name,
            "valohai.pipeline-id": ids["pipeline"],
        },
        runtime={},
    )
    environment = {
        **os.environ,
        **{v.key: str(v.value or "") for v in node.step.environment_variables.values()},
        "VH_CONFIG_DIR": str(folder / "config"),
        "VH_INPUTS_DIR": str(folder / "inputs"),
        "VH_OUTPUTS_DIR": str(outputs),
        "VH_REPOSITORY_DIR": str(REPOSITORY),
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
    return _stream(" && ".join(commands), environment, folder, node)


def _stream(command, environment, folder, node):
    """Runs a shell command; its lines go to the terminal, a log and the metadata."""
    with (
        (folder / "log.txt").open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            shell=True,
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        for line in process.stdout:
            log.write(line)
            metadata = _metadata(line)
            if metadata is not None:
                node.metadata.append(metadata)
                line = f"{_summary(metadata)}\n"
            if line.strip():
                print(f"    {line}", end="", flush=True)
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


def _fetch(node, name):
    """Returns the files of a node's own input as paths; URLs are downloaded once.

    Raises:
        InputError: a file is missing or a download failed.
    """
    found = []
    for value in node.inputs[name]:
        if "://" in value:
            found.append(_download(value, f"--{node.name}.{name}"))
            continue
        path = Path(value).expanduser()
        paths = [path] if path.exists() else sorted(map(Path, glob.glob(value)))
        if paths == [path] and path.is_dir():
            paths = sorted(p for p in path.iterdir() if p.is_file())
        if not paths:
            raise InputError(
                f"--{node.name}.{name}: expected a file, got {value}, which does not "
                "exist; is the path right?"
            )
        found += paths
    return found


def _download(url, where):
    folder = STATE / "downloads" / uuid.uuid5(uuid.NAMESPACE_URL, url).hex
    path = folder / (url.partition("?")[0].rpartition("/")[2] or "download")
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    _say(f"downloading {url}")
    try:
        with (
            urllib.request.urlopen(url, timeout=60) as response,
            partial.open("wb") as file,
            tqdm(
                total=int(response.headers.get("Content-Length") or 0) or None,
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            while chunk := response.read(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
            if bar.total and bar.n != bar.total:
                raise urllib.error.URLError(f"{bar.n:,} of {bar.total:,} bytes came")
    except OSError as error:  # URLError among them.
        partial.unlink(missing_ok=True)
        raise InputError(
            f"{url} cannot be downloaded ({error}); give a file of your own with "
            f"{where}=FILE."
        ) from error
    partial.rename(path)
    return path


def _edge_files(outputs, edge):
    """The files below a step's outputs that an edge carries.

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
    return found


def _link(path, folder):
    """Puts a file into an input's folder; returns its entry in inputs.json."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    if target.exists():
        raise InputError(
            f"two files of the input '{folder.name}' are named {path.name}: {path} and "
            "another; expected different names."
        )
    try:
        os.link(path.resolve(), target)
    except OSError:
        # Another disk, or one without links.
        shutil.copyfile(path, target)
    return {
        "name": path.name,
        "path": str(target),
        "size": target.stat().st_size,
        "uri": path.resolve().as_uri(),
        "metadata": [],
        "checksums": {},
    }


def _write_config(folder, **contents):
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def _describe(node):
    return ", ".join(f"{name} {value}" for name, value in node.parameters.items())


def _summary(metadata):
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in metadata.items()
    )


def _show(path):
    return path.relative_to(REPOSITORY)


def _say(text):
    print(text, flush=True)
