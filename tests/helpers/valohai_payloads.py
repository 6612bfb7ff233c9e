"""What is posted to the stand-in for Valohai's API: checked, and made into nodes."""

import copy
import itertools
from typing import NamedTuple

import valohai_yaml

from valohai_step.local import nodes as local_nodes
from yolov3_tf2.errors import InputError

# The fields of what is posted; it can do without those with a `?`.
_COMMON = "environment? image? title? environment_variables? tags? priority?"
FIELDS = {
    "package": "data description yaml_path",
    "executions": f"commit project step inputs parameters {_COMMON} time_limit? "
    "environment_variable_groups? runtime_config? runtime_config_preset?",
    "tasks": f"commit project step type inputs? parameters? configuration? {_COMMON} "
    "maximum_queued_executions? on_child_error? task_stop_expression? allow_reuse?",
    "pipelines": "project title tags edges nodes parameters reuse_executions?",
    "node": "name type template actions? on-error? edge-merge-mode?",
    "mimic": "name type source",
    "template": "commit step name image command parameters inputs runtime_config "
    "environment? environment-variables? environment-variable-groups? outputs? "
    "mounts? description? category? icon? time-limit? resources? priority?",
    "edge": "source_node source_type source_key target_node target_type target_key",
    "parameter": "config expression",
    "status detail": "status_detail",
}


class Refused(Exception):
    """A request that is answered with `status` and `content`."""

    def __init__(self, status, content):
        super().__init__(status, content)
        self.answer = status, content


class Plan(NamedTuple):
    """What `nodes.run_nodes` takes: nodes by name, and the edges between them.

    `templates` has what was posted for each node.
    """

    nodes: dict
    edges: list
    templates: dict


def check_fields(content, kind):
    """Refuses content that lacks a field, or has one that is not known."""
    names = FIELDS[kind].split()
    required = {name for name in names if not name.endswith("?")}
    known = {name.removesuffix("?") for name in names}
    errors = {name: ["This field is required."] for name in required - set(content)}
    errors |= {name: ["This field is not known."] for name in set(content) - known}
    if errors:
        raise Refused(400, errors)


def plan_execution(payload, config, data):
    """Plans one run of a step, see `plan_pipeline`; `payload` is of an execution."""
    template = {"parameters": {}, "inputs": {}} | payload
    node = {"name": payload["step"], "type": "execution", "template": template}
    return _plan([node], [], {}, config, data)


def plan_task(payload, config, data):
    """Returns a list with the `Plan` of each execution of a task.

    A grid search has one for each combination of values, a distributed task as many as
    it has workers.
    """
    kind, parameters = payload["type"], payload.get("parameters", {})
    values = [_values(name, rule) for name, rule in parameters.items()]
    combinations = [
        dict(zip(parameters, each, strict=True)) for each in itertools.product(*values)
    ]
    if kind == "distributed" and len(combinations) == 1:
        combinations *= payload["configuration"]["execution_count"]
    elif kind != "grid_search":
        raise Refused(400, {"type": [f"{kind}: {len(combinations)} combinations."]})
    return [
        plan_execution(payload | {"parameters": each}, config, data)
        for each in combinations
    ]


def plan_pipeline(payload, config, data):
    """Plans a pipeline; returns its `Plan`.

    Args:
        payload: what was posted.
        config: the `valohai_yaml.objs.Config` of the package.
        data: dict from ids and aliases to `Datum`.

    Raises:
        Refused: it names what the package or the data do not have, or is not whole.
    """
    nodes, edges, parameters = (payload[n] for n in ("nodes", "edges", "parameters"))
    for edge in edges:
        check_fields(edge, "edge")
    for parameter in parameters.values():
        check_fields(parameter, "parameter")
    for node in nodes:
        check_fields(node, "node")
        check_fields(node["template"], "template")
    return _plan(nodes, edges, parameters, config, data)


def _plan(nodes, edges, parameters, config, data):
    for node in nodes:
        step = node["template"]["step"]
        if step not in config.steps:
            raise Refused(400, {"step": [f"There is no step {step}."]})
    pipeline = _parse(nodes, edges, parameters)
    given = {
        (local_nodes.PIPELINE, name): [str(value["expression"])]
        for name, value in parameters.items()
    }
    # The parameters of a pipeline go before those of its nodes.
    targets = [t for parameter in pipeline.parameters for t in parameter.targets]
    targets = {(node, key) for node, _, key in (t.split(".") for t in targets)}
    fed = {(edge.target_node, edge.target_key) for edge in pipeline.edges}
    for node in nodes:
        name, template = node["name"], node["template"]
        for key, value in template["parameters"].items():
            if (name, key) not in targets:
                given[name, key] = [str(value)]
        for key, value in template["inputs"].items():
            uris = [value] if isinstance(value, str) else value
            if uris or (name, key) not in fed:
                given[name, key] = [_path(key, uri, data) for uri in uris]
    try:
        planned = local_nodes.build_nodes(config, pipeline, given)
    except InputError as error:
        raise Refused(400, {"non_field_errors": [str(error)]}) from error
    templates = {node["name"]: node["template"] for node in nodes}
    for name, template in templates.items():
        of_step = copy.copy(planned[name].step)
        of_step.command = template.get("command", of_step.command)
        planned[name].step = of_step
        planned[name].environment = dict(
            template.get("environment_variables")
            or template.get("environment-variables")
            or {}
        )
    return Plan(planned, pipeline.edges, templates)


def _parse(nodes, edges, parameters):
    """Makes what was posted a pipeline again, as valohai.yaml has one."""
    return valohai_yaml.objs.Pipeline.parse(
        {
            "name": "posted",
            "nodes": [
                {
                    "name": node["name"],
                    "type": node["type"],
                    "step": node["template"]["step"],
                    "actions": node.get("actions", []),
                }
                for node in nodes
            ],
            "edges": [
                [
                    ".".join(edge[f"{end}_{part}"] for part in ("node", "type", "key"))
                    for end in ("source", "target")
                ]
                for edge in edges
            ],
            "parameters": [value["config"] for value in parameters.values()],
        }
    )


def _path(key, uri, data):
    """The path of the file of a `datum://`, or any other address as it is."""
    scheme, separator, rest = uri.partition("://")
    if not separator or (scheme == "datum" and rest not in data):
        raise Refused(400, {"inputs": {key: [f"{uri}: there is no such file."]}})
    return str(data[rest].path) if scheme == "datum" else uri


def _values(name, rule):
    """The values that a parameter of a task takes."""
    if rule["style"] == "multiple":
        return rule["rules"]["items"]
    if rule["style"] == "single":
        return [rule["rules"]["value"]]
    raise Refused(400, {"parameters": {name: [f"{rule['style']}: unknown style."]}})
