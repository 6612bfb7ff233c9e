"""Generates valohai.yaml and docs/parameters.md from the scripts.

    python -m valohai_step.write_yaml            writes both
    python -m valohai_step.write_yaml --check    fails if that would change them

Parameters and inputs come from each script's `valohai.prepare`, pipelines from the
pipeline files, as `vh yaml step` and `vh yaml pipeline` read them. This file adds what
those commands do not know: what a step installs, its environment, and the tasks, which
`vh yaml pipeline` deletes.
"""

import ast
import sys

from valohai.internals.pipeline import get_pipeline_from_source
from valohai.internals.yaml import parse_config_from_source
from valohai.yaml import config_to_yaml
from valohai_yaml.objs import Config
from valohai_yaml.objs.environment_variable import EnvironmentVariable
from valohai_yaml.objs.task import Task

from valohai_step import runtime
from valohai_step.local_outputs import REPOSITORY
from valohai_step.parameters import parse_value, split_options, unknown_option

YAML = REPOSITORY / "valohai.yaml"
PAGE = REPOSITORY / "docs" / "parameters.md"

LOCK = "pip install --require-hashes -r {}"
# The command that installs the packages of each step, by its script.
STEPS = {
    "convert_superbai.py": LOCK.format("requirements/cpu.lock"),
    "weights.py": LOCK.format("requirements/cpu.lock"),
    "train.py": LOCK.format("requirements/gpu.lock"),
    "detect.py": LOCK.format("requirements/cpu.lock"),
    "upload_superbai.py": "pip install -r requirements/suite.txt",
    # It needs no SDK, but no TensorFlow either.
    "download_superbai.py": "pip install -r requirements/suite.txt",
}
ENVIRONMENT = {
    "train.py": [
        EnvironmentVariable(
            name="VH_DOCKER_NETWORK",
            default="host",
            description="Lets the machines of a distributed task reach each other.",
        )
    ],
}
PIPELINES = ("pipeline.py", "label_pipeline.py")
TASKS = [
    {
        "name": "learning-rate-sweep",
        "step": "train",
        "type": "grid_search",
        "description": "Trains with several learning rates; compare their best_AP50.",
        "maximum-queued-executions": 3,
        "on-child-error": "continue-and-complete",
        "parameters": [
            {
                "name": "learning_rate",
                "style": "multiple",
                "rules": {"items": [0.0003, 0.001, 0.003]},
            }
        ],
    },
    {
        "name": "train-distributed",
        "step": "train",
        "type": "distributed",
        "description": "Trains one model on several machines.",
        "execution-count": 2,
        "on-child-error": "stop-all-and-error",
        "parameters": [],
    },
]

PAGE_HEAD = """\
# Parameters and inputs

This page lists the parameters and inputs of each step. It is generated from the scripts
by `python -m valohai_step.write_yaml`.

On your own machine, pass them as `--NAME=value` to a script or as `--STEP.NAME=value`
to `python pipeline.py`. On Valohai, they are fields of the web form; in a terminal,
pass them as `--STEP.NAME=value` to `vh pipeline run`, or as `--NAME=value`, with dashes
instead of underscores, to `vh exec run` and `vh task run`.
"""


def build_config():
    """Returns the `valohai_yaml.objs.Config` of all scripts."""
    config = Config()
    for script, install in STEPS.items():
        path = REPOSITORY / script
        (step,) = parse_config_from_source(str(path), str(YAML)).steps.values()
        step.command = [install, step.command[-1]]
        step.description = ast.get_docstring(ast.parse(path.read_text())).split("\n")[0]
        step.environment_variables = {v.name: v for v in ENVIRONMENT.get(script, [])}
        config.steps[step.name] = step
    for script in PIPELINES:
        own = get_pipeline_from_source(str(REPOSITORY / script), config)
        config.pipelines |= own.pipelines
    config.tasks = {task["name"]: Task.parse(task) for task in TASKS}
    return config


def build_page(config):
    """Returns docs/parameters.md: tables of all parameters and inputs."""
    parts = [PAGE_HEAD]
    for step in config.steps.values():
        parts.append(f"\n## {step.name}\n\n{step.description}\n\n")
        rows = [
            (
                f"`{p.name}`",
                p.category,
                _format_default(p),
                _format_values(p),
                p.description,
            )
            for p in step.parameters.values()
        ]
        columns = ("parameter", "group", "default", "values", "description")
        parts.append(_table(columns, rows))
        rows = [
            (f"`{i.name}`", "optional" if i.optional else "required", i.description)
            for i in step.inputs.values()
        ]
        if rows:
            parts.append("\n" + _table(("input", "", "description"), rows))
    for pipeline in config.pipelines.values():
        if pipeline.parameters:
            parts.append(f"\n## Pipeline {pipeline.name}\n\n")
            rows = [
                (f"`{p.name}`", _format_default(p), ", ".join(p.targets))
                for p in pipeline.parameters
            ]
            parts.append(_table(("parameter", "default", "sets"), rows))
    return "".join(parts)


def _format_default(parameter):
    text = str(parameter.default)
    if isinstance(parameter.default, bool):
        text = text.lower()
    return f"`{text}`" if text else ""


def _format_values(parameter):
    """Returns the values that a parameter accepts, as Markdown."""
    if parameter.type == "flag":
        return "`true`, `false`"
    if parameter.choices:
        return ", ".join(f"`{choice}`" for choice in parameter.choices)
    if parameter.min is None:
        return "text"
    number = ",d" if parameter.type == "integer" else "g"
    return f"{parameter.min:{number}} to {parameter.max:{number}}"


def _table(columns, rows):
    lines = [columns, ["---"] * len(columns), *rows]
    cells = [[str(cell).replace("|", r"\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def main():
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return 0
    check = False
    for option in split_options(sys.argv[1:]):
        if option.name != "check":
            raise unknown_option(option.name, ["check"])
        check = parse_value("check", {"default": False}, option.values)
    config = build_config()
    texts = {YAML: config_to_yaml(config), PAGE: build_page(config)}
    changed = [
        path
        for path, text in texts.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path in changed:
        name = path.relative_to(REPOSITORY)
        print(f"{name}: out of date" if check else f"{name} written")
        if not check:
            path.write_text(texts[path], encoding="utf-8")
    if not changed:
        print("valohai.yaml and docs/parameters.md are up to date")
    return int(check and bool(changed))


if __name__ == "__main__":
    runtime.run_step(main)
