"""Runs a pipeline of `valohai.yaml` on this machine, step by step, as Valohai would.

Each step is a process with the folders, config files and environment that a Valohai
worker gives it; what an edge of the pipeline names travels along it. Runs lie in
`.valohai/outputs/<run>/<node>/` (what a step wrote) and `.valohai/runs/<run>/<node>/`
(its inputs, its config files, its log and its metadata).
"""

import contextlib
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import valohai_yaml

from valohai_step import runtime
from valohai_step.inputs import REPOSITORY, SAMPLE_SUFFIX
from valohai_step.local import nodes as local_nodes
from valohai_step.local import worker
from yolov3_tf2.errors import InputError

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
    ("train", "epochs"): "8",
    ("train", "mosaic"): "0",
    ("train", "batch_size"): "16",
}


def run_command_line(pipeline_name, arguments):
    """Runs a pipeline with the arguments of a command line; returns the exit status.

    Args:
        pipeline_name: of the pipeline that is run without `--pipeline=NAME`.
        arguments: of the command line.
    """
    received = runtime.exit_when_stopped()  # And its step with it.
    try:
        return _run(pipeline_name, arguments)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        name = signal.Signals(received[0]).name
        print(f"stopped by {name}", file=sys.stderr)
        return 128 + received[0]


def _run(pipeline_name, arguments):
    text = (REPOSITORY / "valohai.yaml").read_text(encoding="utf-8")
    config = valohai_yaml.parse(text)
    names = [a for a in arguments if a.startswith("--pipeline=")]
    arguments = [a for a in arguments if a not in names]
    for name in names:
        pipeline_name = name.partition("=")[2]
    pipeline = config.pipelines.get(pipeline_name)
    if pipeline is None:
        raise InputError(
            f"--pipeline={pipeline_name}: there is no such pipeline; valohai.yaml has "
            f"{', '.join(config.pipelines)}."
        )
    if "--help" in arguments:
        _print_help(config, pipeline)
        return 0
    given = parse_arguments(arguments)
    converts = any(node.name == "convert-superbai" for node in pipeline.nodes)
    is_sample = converts and not any(
        ("convert-superbai", name) in given for name in ("images", "labels")
    )
    if is_sample:
        given = _sample_values(pipeline, given) | given
    nodes = local_nodes.build_nodes(config, pipeline, given)
    if is_sample:
        _draw_sample()
    # Before the first step: a file that is missing for the last one ends nothing.
    for node in nodes.values():
        node.files = {key: worker.fetch_files(STATE, node, key) for key in node.inputs}

    # The form of valohai-utils' own local runs, so that steps find these outputs too.
    run = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    if is_sample:
        run += SAMPLE_SUFFIX
    start = time.monotonic()
    ended = local_nodes.run_nodes(STATE, run, nodes, pipeline.edges)
    outputs = (STATE / "outputs" / run).relative_to(REPOSITORY)
    if ended:
        log = (STATE / "runs" / run).relative_to(REPOSITORY)
        worker.say(f"{ended}; what each step printed: {log}/*/log.txt")
        worker.say(f"what was written: {outputs}")
        return 1
    worker.say(f"{pipeline_name} done in {time.monotonic() - start:.0f} s")
    for node in nodes.values():
        worker.say(f"  {outputs / node.name}")
        if node.metadata:
            worker.say(f"    {worker.summary(node.metadata[-1])}")
    return 0


def parse_arguments(arguments):
    """Parses `--NODE.NAME=value`; returns lists of values by (node, name).

    An argument that is given twice has both values. `--NAME=value` is of the pipeline.

    Raises:
        InputError: an argument is not of that form.
    """
    given = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        node, dot, name = key.removeprefix("--").rpartition(".")
        parts = (argument.startswith("--"), equals, name, value, node or not dot)
        if not all(parts):
            raise InputError(
                f"{argument}: expected --NODE.NAME=value, as in --train.epochs=20 or "
                "--convert-superbai.images=images.zip, or --NAME=value of a parameter "
                "of the pipeline, as in --epochs=20."
            )
        given.setdefault((node, name), []).append(value)
    return given


def _print_help(config, pipeline):
    print("python pipeline.py [--pipeline=NAME] [--NAME=value …] [--NODE.NAME=value …]")
    print(f"\nRuns {pipeline.name} here; there are {', '.join(config.pipelines)}.\n")
    for parameter in pipeline.parameters:
        print(f"  --{parameter.name}  ({parameter.default})")
        print(f"      {parameter.description} Sets {', '.join(parameter.targets)}.")
    for node in pipeline.nodes:
        of_step = config.steps[node.step]
        print(f"\n{node.name}")
        for name, spec in (*of_step.parameters.items(), *of_step.inputs.items()):
            default = spec.default if spec.default not in (None, []) else "no default"
            print(f"  --{node.name}.{name}  ({default})\n      {spec.description}")


def _sample_values(pipeline, given):
    """Returns the inputs and parameters of a run on the built-in sample.

    Args:
        pipeline: whose parameters go before the sample's, where they are given.
        given: what is, see `nodes.build_nodes`.
    """
    folder = STATE / "sample"
    files = {key: [str(folder / name)] for key, name in SAMPLE_FILES.items()}
    values = files | {key: [value] for key, value in SAMPLE_PARAMETERS.items()}
    for parameter in pipeline.parameters:
        if (local_nodes.PIPELINE, parameter.name) in given:
            for target in parameter.targets:
                node, _, name = target.split(".")
                values.pop((node, name), None)
    return values


def _draw_sample():
    """Draws the built-in sample, once.

    Raises:
        InputError: it could not be drawn.
    """
    folder = STATE / "sample"
    shown = folder.relative_to(REPOSITORY)
    worker.say(f"no images and labels given: using a sample, {shown}")
    if folder.is_dir():
        return
    STATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sample-", dir=STATE) as partial:
        command = [
            sys.executable,
            "-m",
            "valohai_step.local.sample",
            f"{partial}/sample",
        ]
        try:
            subprocess.run(command, check=True, cwd=REPOSITORY)
        except subprocess.CalledProcessError as error:
            raise InputError(
                f"the built-in sample could not be drawn (exit status "
                f"{error.returncode}); the reason stands above."
            ) from error
        # Another run may have drawn it in the meantime; it draws the same.
        with contextlib.suppress(OSError):
            Path(partial, "sample").rename(folder)
