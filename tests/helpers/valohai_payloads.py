"""Payloads posted to the stand-in for Valohai's API: checking them, building nodes."""

import copy
import itertools
from typing import NamedTuple

import valohai_yaml

from valohai_step.local import nodes as local_nodes
from yolov3_tf2.errors import InputError

# The fields of each payload; those with a `?` are optional.
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


class Rejected(Exception):
    """A rejected request; the answer has `status` and `content`."""

    def __init__(self, status, content):
        super().__init__(status, content)
        self.answer = status, content


class Plan(NamedTuple):
    """The nodes to run, by name, and the edges between them, see `nodes.run_nodes`.

    `templates` is a dict with the payload of each node.
    """

    nodes: dict
    edges: list
    templates: dict


def check_fields(content, kind):
    """Rejects content that lacks a field or has an unknown one."""
    names = FIELDS[kind].split()
    required = {name for name in names if not name.endswith("?")}
    allowed = {name.removesuffix("?") for name in names}
    errors = {name: ["This field is required."] for name in required - set(content)}
    errors |= {name: ["This field is not known."] for name in set(content) - allowed}
    if errors:
        raise Rejected(400, errors)


def plan_execution(payload, config, data):
    """Returns the `Plan` of an execution, see `plan_pipeline`."""
    template = {"parameters": {}, "inputs": {}} | payload
    node = {"name": payload["step"], "type": "execution", "template": template}
    return _plan([node], [], {}, config, data)


def plan_task(payload, config, data):
    """Returns a list with the `Plan` of each execution of a task.

    A grid search has one for each combination of values, a distributed task one for
    each worker.
    """
    kind, parameters = payload["type"], payload.get("parameters", {})
    values = [_values(name, rule) for name, rule in parameters.items()]
    combinations = [
        dict(zip(parameters, each, strict=True)) for each in itertools.product(*values)
    ]
    if kind == "distributed" and len(combinations) == 1:
        combinations *= payload["configuration"]["execution_count"]
    elif kind != "grid_search":
        raise Rejected(400, {"type": [f"{kind}: {len(combinations)} combinations."]})
    return [
        plan_execution(payload | {"parameters": each}, config, data)
        for each in combinations
    ]


def plan_pipeline(payload, config, data):
    """Returns the `Plan` of a pipeline.

    Args:
        payload: of the request.
        config: the `valohai_yaml.objs.Config` of the package.
        data: dict from ids and aliases to `Datum`.

    Raises:
        Rejected: the payload is incomplete, or names something that does not exist.
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
            raise Rejected(400, {"step": [f"There is no step {step}."]})
    pipeline = _parse(nodes, edges, parameters)
    texts = {
        (local_nodes.PIPELINE, name): [str(value["expression"])]
        for name, value in parameters.items()
    }
    # Parameters of the pipeline override those of its nodes.
    targets = [t for parameter in pipeline.parameters for t in parameter.targets]
    targets = {(node, key) for node, _, key in (t.split(".") for t in targets)}
    fed = {(edge.target_node, edge.target_key) for edge in pipeline.edges}
    for node in nodes:
        name, template = node["name"], node["template"]
        for key, value in template["parameters"].items():
            if (name, key) not in targets:
                texts[name, key] = [str(value)]
        for key, value in template["inputs"].items():
            uris = [value] if isinstance(value, str) else value
            if uris or (name, key) not in fed:
                texts[name, key] = [_path(key, uri, data) for uri in uris]
    try:
        planned = local_nodes.build_nodes(config, pipeline, texts)
    except InputError as error:
        raise Rejected(400, {"non_field_errors": [str(error)]}) from error
    templates = {node["name"]: node["template"] for node in nodes}
    for name, template in templates.items():
        step = copy.copy(planned[name].step)
        step.command = template.get("command", step.command)
        planned[name].step = step
        planned[name].environment = dict(
            template.get("environment_variables")
            or template.get("environment-variables")
            or {}
        )
    return Plan(planned, pipeline.edges, templates)


def _parse(nodes, edges, parameters):
    """Returns the `valohai_yaml.objs.Pipeline` of a payload."""
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
    """Returns the path of the file of a `datum://` URI, or any other URI unchanged."""
    scheme, separator, rest = uri.partition("://")
    if not separator or (scheme == "datum" and rest not in data):
        raise Rejected(400, {"inputs": {key: [f"{uri}: there is no such file."]}})
    return str(data[rest].path) if scheme == "datum" else uri


def _values(name, rule):
    """Returns the values of a parameter of a task."""
    if rule["style"] == "multiple":
        return rule["rules"]["items"]
    if rule["style"] == "single":
        return [rule["rules"]["value"]]
    raise Rejected(400, {"parameters": {name: [f"{rule['style']}: unknown style."]}})
