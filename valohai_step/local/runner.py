"""Runs a pipeline of `valohai.yaml` on this machine, step by step, as Valohai does.

Each step is a process with the folders, config files and environment that a Valohai
worker gives it. Its outputs are passed on as the edges of the pipeline say. Runs are
kept in `.valohai/outputs/<run>/<node>/` (what a step wrote) and
`.valohai/runs/<run>/<node>/` (its inputs, config files, log and metadata).
"""

import contextlib
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from valohai_step import local_outputs, runtime
from valohai_step.local import nodes as local_nodes
from valohai_step.local import worker
from valohai_step.local_outputs import REPOSITORY, SAMPLE_SUFFIX, STATE
from valohai_step.option_help import format_option
from valohai_step.parameters import (
    check_not_empty,
    only_value,
    split_options,
    suggest_name,
)
from yolov3_tf2.errors import InputError, describe

# Without images and labels the pipeline runs on a drawn sample, small enough for a
# laptop. Values of the command line override these.
SAMPLE_FILES = {
    ("convert-superbai", "images"): "images.zip",
    ("convert-superbai", "labels"): "labels.zip",
    ("weights", "weights"): "yolov3-tiny.weights",
    ("weights", "cfg"): "yolov3-tiny.cfg",
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
        pipeline_name: of the pipeline to run where there is no `--pipeline=NAME`.
        arguments: of the command line.
    """
    runtime.set_up_logging()
    received = runtime.exit_when_stopped()  # The running step is stopped too.
    try:
        return _run(pipeline_name, arguments)
    except (InputError, OSError) as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        name = signal.Signals(received[0]).name
        print(f"stopped by {name}", file=sys.stderr)
        return 128 + received[0]


def _run(pipeline_name, arguments):
    config = local_outputs.read_config()
    is_help = bool({"-h", "--help"} & set(arguments))
    if is_help:
        arguments = [each for each in arguments if each.startswith("--pipeline=")]
    texts = parse_arguments(arguments)
    names = texts.pop((local_nodes.PIPELINE, "pipeline"), [pipeline_name])
    pipeline = _find_pipeline(config, only_value("pipeline", names[-1:]))
    if is_help:
        _print_help(config, pipeline)
        return 0
    converts = any(node.name == "convert-superbai" for node in pipeline.nodes)
    is_sample = converts and not any(
        ("convert-superbai", name) in texts for name in ("images", "labels")
    )
    if is_sample:
        texts = _sample_values(pipeline, texts) | texts
    for node in pipeline.nodes:
        for name in config.steps[node.step].inputs:
            if (node.name, name) in texts:
                check_not_empty(f"{node.name}.{name}", texts[node.name, name])
    nodes = local_nodes.build_nodes(config, pipeline, texts)
    if is_sample:
        _draw_sample()
    # Before the first step runs: a missing file of the last step is reported now.
    for node in nodes.values():
        node.files = {key: worker.fetch_files(STATE, node, key) for key in node.inputs}

    # Named as valohai-utils names its local runs, so that steps find these outputs too.
    run = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    if is_sample:
        run += SAMPLE_SUFFIX
    start = time.monotonic()
    reason = local_nodes.run_nodes(STATE, run, nodes, pipeline.edges)
    outputs = (STATE / "outputs" / run).relative_to(REPOSITORY)
    if reason:
        logs = (STATE / "runs" / run).relative_to(REPOSITORY)
        worker.say(f"{reason}; logs of the steps: {logs}/*/log.txt")
        worker.say(f"outputs: {outputs}")
        return 1
    worker.say(f"{pipeline.name} done in {time.monotonic() - start:.0f} s")
    for node in nodes.values():
        worker.say(f"  {outputs / node.name}")
        if node.metadata:
            worker.say(f"    {worker.format_metadata(node.metadata[-1])}")
    return 0


def _find_pipeline(config, name):
    if name not in config.pipelines:
        raise InputError(
            f"--pipeline={name}: unknown pipeline; "
            f"{suggest_name(name, list(config.pipelines))}"
        )
    return config.pipelines[name]


def parse_arguments(arguments):
    """Parses `--NODE.NAME=value`; returns lists of values by (node, name).

    An option that is repeated has all its values. `--NAME=value` is an option of the
    pipeline: its node is `nodes.PIPELINE`.

    Raises:
        InputError: an argument is malformed.

    Example:
        >>> parse_arguments(["--train.size=416", "--epochs=20"])
        {('train', 'size'): ['416'], ('', 'epochs'): ['20']}
    """
    texts = {}
    for option in split_options(arguments):
        node, dot, name = option.name.rpartition(".")
        if not name or (dot and not node):
            raise InputError(
                f"--{option.name}: expected --NODE.NAME=value, as in --train.epochs=20 "
                "or --convert-superbai.images=images.zip, or --NAME=value for a "
                "parameter of the pipeline, as in --epochs=20."
            )
        if len(option.values) > 1:
            raise InputError(
                f"--{option.name}: expected one value, got {' '.join(option.values)}; "
                "repeat the option for several files."
            )
        texts.setdefault((node, name), []).extend(option.values)
    return texts


def _print_help(config, pipeline):
    print("python pipeline.py [--pipeline=NAME] [--NAME=value …] [--NODE.NAME=value …]")
    print(f"\nRuns the pipeline {pipeline.name} on this machine.")
    print(f"Pipelines: {', '.join(config.pipelines)}.\n")
    for parameter in pipeline.parameters:
        print(format_option(parameter.name, vars(parameter)))
        print(f"      Sets {', '.join(parameter.targets)}.")
    for node in pipeline.nodes:
        step = config.steps[node.step]
        print(f"\n{node.name}")
        for name, spec in (*step.inputs.items(), *step.parameters.items()):
            print(format_option(f"{node.name}.{name}", vars(spec)))


def _sample_values(pipeline, texts):
    """Returns the inputs and parameters of a run on the built-in sample.

    Args:
        pipeline: its parameters override those of the sample where they are given.
        texts: the values given, see `nodes.build_nodes`.
    """
    folder = STATE / "sample"
    files = {key: [str(folder / name)] for key, name in SAMPLE_FILES.items()}
    values = files | {key: [value] for key, value in SAMPLE_PARAMETERS.items()}
    if ("weights", "weights") in texts:
        del values["weights", "cfg"]  # It belongs to the weights of the sample.
    for parameter in pipeline.parameters:
        if (local_nodes.PIPELINE, parameter.name) in texts:
            for target in parameter.targets:
                node, _, name = target.split(".")
                values.pop((node, name), None)
    return values


def _draw_sample():
    """Draws the built-in sample, unless an earlier run has.

    Raises:
        InputError: it could not be drawn.
    """
    folder = STATE / "sample"
    shown = folder.relative_to(REPOSITORY)
    worker.say(
        "no images and labels given, using the built-in sample of drawn images and "
        f"random weights: {shown}"
    )
    if all((folder / name).is_file() for name in SAMPLE_FILES.values()):
        return
    shutil.rmtree(folder, ignore_errors=True)  # Of an earlier version, without a cfg.
    STATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sample-", dir=STATE) as partial:
        target = f"{partial}/sample"
        command = [sys.executable, "-m", "valohai_step.local.sample", target]
        try:
            subprocess.run(command, check=True, cwd=REPOSITORY)
        except subprocess.CalledProcessError as error:
            raise InputError(
                f"the built-in sample could not be drawn (exit status "
                f"{error.returncode}); see the messages above."
            ) from error
        # Another run may have drawn the same one in the meantime.
        with contextlib.suppress(OSError):
            Path(target).rename(folder)
