"""Runs a pipeline of `valohai.yaml` on this machine, step by step, as Valohai would.

Each step is a process with the folders, config files and environment that a Valohai
worker gives it; what an edge of the pipeline names travels along it. Runs lie in
`.valohai/outputs/<run>/<node>/` (what a step wrote) and `.valohai/runs/<run>/<node>/`
(its inputs, its config files, its log and its metadata).
"""

import contextlib
import graphlib
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import valohai_yaml

import local_worker
import step
import step_inputs
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
    ("train", "epochs"): "8",
    ("train", "mosaic"): "0",
    ("train", "batch_size"): "16",
    ("detect", "size"): "160",
}


def run_command_line(pipeline_name, arguments):
    """Runs a pipeline with `--NODE.NAME=value` arguments; returns the exit status.

    Args:
        pipeline_name: of the pipeline that is run without `--pipeline=NAME`.
        arguments: of the command line.
    """
    received = step.exit_when_stopped()  # And its step with it.
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
        given = _sample_values() | given
    nodes = _build_nodes(config, pipeline, given)
    sources = {
        name: {e.source_node for e in pipeline.edges if e.target_node == name}
        for name in nodes
    }
    order = list(graphlib.TopologicalSorter(sources).static_order())
    if is_sample:
        _draw_sample()
    # Before the first step: a file that is missing for the last one ends nothing.
    for name in order:
        nodes[name].files = {
            key: local_worker.fetch(STATE, nodes[name], key)
            for key in nodes[name].inputs
        }

    # The form of valohai-utils' own local runs, so that steps find these outputs too.
    run = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    if is_sample:
        run += step_inputs.SAMPLE_SUFFIX
    start = time.monotonic()
    for number, name in enumerate(order, start=1):
        local_worker.say(f"[{number}/{len(order)}] {name}: {_describe(nodes[name])}")
        step_start = time.monotonic()
        status = local_worker.run_node(STATE, run, nodes[name], pipeline.edges)
        seconds = time.monotonic() - step_start
        if status:
            local_worker.say(
                f"[{number}/{len(order)}] {name} failed after {seconds:.0f} s with "
                f"exit status {status}; its messages stand above and in "
                f"{_show(STATE / 'runs' / run / name / 'log.txt')}"
            )
            if number > 1:
                local_worker.say(
                    f"what ran before it: {_show(STATE / 'outputs' / run)}"
                )
            return 1
        outputs = STATE / "outputs" / run / name
        local_worker.say(
            f"[{number}/{len(order)}] {name} done in {seconds:.0f} s: {_show(outputs)}"
        )
    local_worker.say(f"{pipeline_name} done in {time.monotonic() - start:.0f} s")
    for name in order:
        if nodes[name].metadata:
            local_worker.say(
                f"  {name}: {local_worker.summary(nodes[name].metadata[-1])}"
            )
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
        parts = (argument.startswith("--"), equals, dot, node, name, value)
        if not all(parts):
            raise InputError(
                f"{argument}: expected --NODE.NAME=value, as in --train.epochs=20 or "
                "--convert-superbai.images=images.zip."
            )
        given.setdefault((node, name), []).append(value)
    return given


def _print_help(config, pipeline):
    print("python pipeline.py [--pipeline=NAME] [--NODE.NAME=value ...]\n")
    print(f"Runs {pipeline.name} here; there are {', '.join(config.pipelines)}.")
    for node in pipeline.nodes:
        of_step = config.steps[node.step]
        print(f"\n{node.name}")
        for name, spec in (*of_step.parameters.items(), *of_step.inputs.items()):
            default = spec.default if spec.default not in (None, []) else "no default"
            print(f"  --{node.name}.{name}  ({default})\n      {spec.description}")


def _sample_values():
    """Returns the inputs and parameters of a run on the built-in sample."""
    folder = STATE / "sample"
    files = {key: [str(folder / name)] for key, name in SAMPLE_FILES.items()}
    return files | {key: [value] for key, value in SAMPLE_PARAMETERS.items()}


def _draw_sample():
    """Draws the built-in sample, once.

    Raises:
        InputError: it could not be drawn.
    """
    folder = STATE / "sample"
    local_worker.say(f"no images and labels given: using a sample, {_show(folder)}")
    if folder.is_dir():
        return
    STATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sample-", dir=STATE) as partial:
        command = [sys.executable, str(REPOSITORY / "samples.py"), f"{partial}/sample"]
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


def _build_nodes(config, pipeline, given):
    """Returns the pipeline's nodes by name, with their parameters and inputs.

    Raises:
        InputError: `given` names what is not there, or a required input is missing.
    """
    fed = {
        (edge.target_node, edge.target_key): edge.source_node for edge in pipeline.edges
    }
    nodes = {}
    for node in pipeline.nodes:
        of_step = config.steps[node.step]
        parameters = {
            name: parameter.default
            for name, parameter in of_step.parameters.items()
            if parameter.default is not None
        }
        inputs = {}
        for name, spec in of_step.inputs.items():
            default = spec.default or []
            inputs[name] = [default] if isinstance(default, str) else list(default)
            if (node.name, name) in fed:
                inputs[name] = []  # What an edge brings replaces the default.
        nodes[node.name] = local_worker.Node(node.name, of_step, parameters, inputs)
    for (node_name, name), values in given.items():
        node = nodes.get(node_name)
        if node is None:
            raise InputError(
                f"--{node_name}.{name}: the pipeline has no node '{node_name}' "
                f"({step.did_you_mean(node_name, list(nodes))})."
            )
        where = f"--{node_name}.{name}"
        if (node_name, name) in fed:
            raise InputError(
                f"{where}: the pipeline brings this input from {fed[node_name, name]}; "
                "to use a file of your own, run the step's script alone."
            )
        if name in node.inputs:
            node.inputs[name] = values
        elif name in node.step.parameters:
            parameter = node.step.parameters[name]
            value = _typed(parameter, values[-1], where)
            _check_range(parameter, value, where)
            node.parameters[name] = value
        else:
            known = [*node.step.parameters, *node.inputs]
            raise InputError(
                f"{where}: the step has no such parameter or input "
                f"({step.did_you_mean(name, known)})."
            )
    for node in nodes.values():
        for name, spec in node.step.inputs.items():
            is_there = node.inputs[name] or spec.optional or (node.name, name) in fed
            if not is_there:
                raise InputError(
                    f"the input '{name}' of {node.name} is missing; give "
                    f"--{node.name}.{name}=FILE."
                )
    return nodes


def _check_range(parameter, value, where):
    """Raises an `InputError` for a value that the step would refuse when it starts."""
    if parameter.name == "size":  # What no range can say.
        check = step.check_size_range if isinstance(value, str) else step.check_size
        check(value)
    if parameter.choices and value not in parameter.choices:
        raise InputError(
            f"{where}: expected one of {', '.join(map(str, parameter.choices))}, got "
            f"{value!r}."
        )
    too_low = parameter.min is not None and not value >= parameter.min
    too_high = parameter.max is not None and not value <= parameter.max
    if too_low or too_high:
        raise InputError(
            f"{where}: expected a value from {parameter.min:g} to {parameter.max:g}, "
            f"got {value:g}."
        )


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


def _describe(node):
    return ", ".join(f"{name} {value}" for name, value in node.parameters.items())


def _show(path):
    return path.relative_to(REPOSITORY)
