"""The steps of a pipeline: what each of them gets, in which order, and until when.

What `runner.py` has of the command line, and any other runner of an API's payload,
becomes nodes here; `worker.py` runs each.
"""

import graphlib
import time

from leval.excs import NoSuchValue
from leval.simple import simple_eval

from valohai_step.local import worker
from valohai_step.parameters import check_size, check_size_range, did_you_mean
from yolov3_tf2.errors import InputError

# Of the node in a key of what is given: the pipeline itself.
PIPELINE = ""
# What an action does that ends a pipeline before its last step.
_ENDS = ("stop-pipeline", "error-pipeline")


def build_nodes(config, pipeline, given):
    """Returns the pipeline's nodes by name, in their order.

    Args:
        config: the `valohai_yaml.objs.Config` with the steps.
        pipeline: the `valohai_yaml.objs.Pipeline`.
        given: dict from (node, name) to a list of values, as texts: of an input, a
            parameter, or where the node is `PIPELINE` of a parameter of the pipeline.

    Raises:
        InputError: `given` names what is not there, or a required input is missing.
    """
    given = _of_nodes(pipeline, given)
    fed = {
        (edge.target_node, edge.target_key): edge.source_node for edge in pipeline.edges
    }
    nodes = {}
    for node in pipeline.nodes:
        of_step = config.steps[node.step]
        inputs = {}
        for name, spec in of_step.inputs.items():
            default = spec.default or []
            inputs[name] = [default] if isinstance(default, str) else list(default)
            if (node.name, name) in fed:
                inputs[name] = []  # What an edge brings replaces the default.
        nodes[node.name] = worker.Node(
            node.name, of_step, step_defaults(of_step), inputs, node.actions
        )
    for (node_name, name), values in given.items():
        node = nodes.get(node_name)
        if node is None:
            raise InputError(
                f"--{node_name}.{name}: the pipeline has no node '{node_name}' "
                f"({did_you_mean(node_name, list(nodes))})."
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
            node.parameters[name] = typed_value(
                node.step.parameters[name], values[-1], where
            )
        else:
            known = [*node.step.parameters, *node.inputs]
            raise InputError(
                f"{where}: the step has no such parameter or input "
                f"({did_you_mean(name, known)})."
            )
    for node in nodes.values():
        for name, spec in node.step.inputs.items():
            is_there = node.inputs[name] or spec.optional or (node.name, name) in fed
            if not is_there:
                raise InputError(
                    f"the input '{name}' of {node.name} is missing; give "
                    f"--{node.name}.{name}=FILE."
                )
    return {name: nodes[name] for name in _order(nodes, pipeline.edges)}


def step_defaults(of_step):
    """The defaults of a step's parameters, those that have one, by name."""
    return {
        name: parameter.default
        for name, parameter in of_step.parameters.items()
        if parameter.default is not None
    }


def _of_nodes(pipeline, given):
    """Hands the values of the pipeline's own parameters on to the nodes' ones."""
    shared = {parameter.name: parameter for parameter in pipeline.parameters}
    own = {key: values for key, values in given.items() if key[0] != PIPELINE}
    for (node, name), values in given.items():
        if node != PIPELINE:
            continue
        if name not in shared:
            raise InputError(
                f"--{name}: the pipeline has no such parameter "
                f"({did_you_mean(name, list(shared))}); those of a step are given "
                "as --NODE.NAME=value."
            )
        for target in shared[name].targets:
            target_node, _, target_name = target.split(".")
            if (target_node, target_name) in own:
                raise InputError(
                    f"--{name}: it sets --{target_node}.{target_name}, which is given "
                    "too; expected one of them."
                )
            own[target_node, target_name] = values
    return own


def _order(names, edges):
    """The names of nodes, each behind those that its edges come from."""
    sources = {
        name: {e.source_node for e in edges if e.target_node == name} for name in names
    }
    return list(graphlib.TopologicalSorter(sources).static_order())


def typed_value(parameter, text, where):
    """Turns the text of a command line into a value of a step's parameter.

    Raises:
        InputError: the step would refuse it when it starts.
    """
    kinds = {"integer": int, "float": float, "string": str}
    if parameter.type == "flag":
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise InputError(f"{where}: expected true or false, got {text!r}.")
    try:
        value = kinds[parameter.type](text)
    except ValueError:
        raise InputError(f"{where}: expected {parameter.type}, got {text!r}.") from None
    _check_range(parameter, value, where)
    return value


def _check_range(parameter, value, where):
    if parameter.name == "size":  # What no range can say.
        check = check_size_range if isinstance(value, str) else check_size
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


def run_nodes(state, name, nodes, edges, repository=None, run_node=worker.run_node):
    """Runs nodes one after the other, until one fails or ends the pipeline.

    Args:
        state: the folder of all runs, see `runner.py`.
        name: of this run.
        nodes: the result of `build`, their files fetched.
        edges: of the pipeline.
        repository: see `worker.run_node`.
        run_node: what runs each of them, called as that is.

    Returns:
        Why it ended before its last node, a text; empty where it has not.
    """
    for number, node in enumerate(nodes.values(), start=1):
        place = f"[{number}/{len(nodes)}] {node.name}"
        given = {key: v for key, v in node.parameters.items() if v != ""}
        values = ", ".join(f"{key} {value}" for key, value in given.items())
        worker.say(f"{place}: {values}")
        start = time.monotonic()
        status = run_node(state, name, node, edges, repository)
        seconds = time.monotonic() - start
        if status:
            return f"{place} failed after {seconds:.0f} s with exit status {status}"
        worker.say(f"{place} done in {seconds:.0f} s")
        for action in node.actions:
            if "node-complete" in action.when and set(_ENDS) & set(action.then):
                met = [c for c in action.if_ if _is_met(c, node)]
                if len(met) == len(action.if_):
                    return f"{place}: {' and '.join(met)}, so the pipeline ends here"
    return ""


def _is_met(condition, node):
    """Whether a condition holds for a step: of its last metadata and its parameters.

    What names something that the step has not printed is not met.
    """
    values = {("parameter", key): value for key, value in node.parameters.items()}
    for line in node.metadata:
        values |= {("metadata", key): value for key, value in line.items()}
    try:
        return bool(simple_eval(condition, values=values))
    except NoSuchValue:
        return False
