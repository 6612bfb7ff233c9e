"""The steps of a pipeline as nodes: their values, their order, and running them all.

Both the command line of `runner.py` and the payload of an API can be turned into
nodes. `worker.py` runs a single one.
"""

import graphlib
import time

from leval.excs import NoSuchValue
from leval.simple import simple_eval

from valohai_step.local import worker
from valohai_step.parameters import (
    check_one_name,
    current_name,
    parse_value,
    suggest_name,
    unknown_option,
)
from yolov3_tf2.errors import InputError

# Stands for the pipeline itself where a key has the name of a node.
PIPELINE = ""
# The actions that end a pipeline before its last step.
_ENDING_ACTIONS = {"stop-pipeline", "error-pipeline"}


def build_nodes(config, pipeline, texts):
    """Returns the pipeline's nodes by name, in the order in which they run.

    Args:
        config: the `valohai_yaml.objs.Config` with the steps.
        pipeline: the `valohai_yaml.objs.Pipeline`.
        texts: dict from (node, name) to a list of values, as texts. The name is that of
            an input or of a parameter; with the node `PIPELINE`, that of a parameter of
            the pipeline. An input's list may be empty.

    Raises:
        InputError: a value is not valid, a name is unknown, or a required input is
            missing.
    """
    texts = _pass_to_nodes(config, pipeline, texts)
    source_nodes = {
        (edge.target_node, edge.target_key): edge.source_node for edge in pipeline.edges
    }
    nodes = {}
    for node in pipeline.nodes:
        step = config.steps[node.step]
        inputs = {name: _input_default(spec) for name, spec in step.inputs.items()}
        for name in inputs:
            if (node.name, name) in source_nodes:
                inputs[name] = []  # An edge replaces the default.
        nodes[node.name] = worker.Node(
            node.name, step, _parameter_defaults(step), inputs, node.actions
        )
    names = {}
    for (node_name, name), values in texts.items():
        if node_name not in nodes:
            raise InputError(
                f"--{node_name}.{name}: unknown node '{node_name}'; "
                f"{suggest_name(node_name, list(nodes))}"
            )
        if (node_name, name) in source_nodes:
            raise InputError(
                f"--{node_name}.{name}: this input comes from "
                f"{source_nodes[node_name, name]} in this pipeline; to use your own "
                "file, run the step's script alone."
            )
        declared_name = current_name(name, nodes[node_name].step.parameters)
        check_one_name(names.setdefault((node_name, declared_name), name), name)
        _set_value(nodes[node_name], name, values)
    for node in nodes.values():
        for name, spec in node.step.inputs.items():
            is_fed = (node.name, name) in source_nodes
            if not (node.inputs[name] or spec.optional or is_fed):
                raise InputError(
                    f"input '{name}' of {node.name} is missing; give "
                    f"--{node.name}.{name}=FILE."
                )
    return {name: nodes[name] for name in _order_nodes(nodes, pipeline.edges)}


def _set_value(node, name, texts):
    """Sets an input or a parameter of a node from texts."""
    parameters = node.step.parameters
    option = f"{node.name}.{name}"
    if name in node.inputs:
        node.inputs[name] = texts
        return
    declared_name = current_name(name, parameters)
    if declared_name not in parameters:
        raise unknown_option(name, [*parameters, *node.inputs], f"{node.name}.")
    spec = parameters[declared_name].serialize()
    # The last value counts where an option is repeated.
    node.parameters[declared_name] = parse_value(option, spec, texts[-1:])
    if declared_name != name:
        worker.say(f"WARNING: --{option} is now called --{node.name}.{declared_name}")


def _parameter_defaults(step):
    """Returns the defaults of a step's parameters, of those that have one, by name."""
    return {
        name: parameter.default
        for name, parameter in step.parameters.items()
        if parameter.default is not None
    }


def _input_default(spec):
    """Returns the default paths and URLs of an input as a list."""
    default = spec.default or []
    return [default] if isinstance(default, str) else list(default)


def _pass_to_nodes(config, pipeline, texts):
    """Replaces the parameters of the pipeline by those of nodes that they set."""
    declared = {parameter.name: parameter for parameter in pipeline.parameters}
    steps = {node.name: config.steps[node.step] for node in pipeline.nodes}
    of_nodes = {key: values for key, values in texts.items() if key[0] != PIPELINE}
    for (node, name), values in texts.items():
        if node != PIPELINE:
            continue
        if name not in declared:
            message = str(unknown_option(name, declared)).rstrip(".")
            raise InputError(
                f"{message}; options of a step are written --NODE.NAME=value."
            )
        for target in declared[name].targets:
            target_node, _, target_name = target.split(".")
            if (target_node, target_name) in of_nodes:
                raise InputError(
                    f"--{name} sets --{target_node}.{target_name}: expected only one "
                    "of them, got both."
                )
            # Here, so that an error names the option that was given.
            spec = steps[target_node].parameters[target_name].serialize()
            parse_value(name, spec, values[-1:])
            of_nodes[target_node, target_name] = values
    return of_nodes


def _order_nodes(names, edges):
    """Returns the names of nodes, each after those that its edges come from."""
    sources = {
        name: {e.source_node for e in edges if e.target_node == name} for name in names
    }
    return list(graphlib.TopologicalSorter(sources).static_order())


def run_nodes(state, name, nodes, edges, repository=None, run_node=worker.run_node):
    """Runs nodes one after the other, until one fails or ends the pipeline.

    Args:
        state: the folder of all runs, see `runner.py`.
        name: of this run.
        nodes: the result of `build_nodes`, with their files fetched.
        edges: of the pipeline.
        repository: see `worker.run_node`.
        run_node: the function that runs each node, called like `worker.run_node`.

    Returns:
        The reason why the pipeline ended early, a text; empty if it did not.
    """
    for number, node in enumerate(nodes.values(), start=1):
        title = f"[{number}/{len(nodes)}] {node.name}"
        values = ", ".join(
            f"{key} {value}" for key, value in node.parameters.items() if value != ""
        )
        worker.say(f"{title}: {values}")
        start = time.monotonic()
        status = run_node(state, name, node, edges, repository)
        seconds = time.monotonic() - start
        if status:
            return f"{title} failed after {seconds:.0f} s with exit status {status}"
        worker.say(f"{title} done in {seconds:.0f} s")
        for action in node.actions:
            if "node-complete" in action.when and _ENDING_ACTIONS & set(action.then):
                met = [each for each in action.if_ if _is_met(each, node)]
                if len(met) == len(action.if_):
                    return f"{title}: pipeline stopped, as {' and '.join(met)}"
    return ""


def _is_met(condition, node):
    """Whether a condition on the last metadata and the parameters of a node holds.

    A condition on something that the step has not printed does not.
    """
    values = {("parameter", key): value for key, value in node.parameters.items()}
    for line in node.metadata:
        values |= {("metadata", key): value for key, value in line.items()}
    try:
        return bool(simple_eval(condition, values=values))
    except NoSuchValue:
        return False
