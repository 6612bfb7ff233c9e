"""Writes what follows from the scripts: valohai.yaml, and the page of parameters.

    python -m valohai_step.write_yaml            writes both anew
    python -m valohai_step.write_yaml --check    tells whether that would change them

Parameters and inputs are those of each script's `valohai.prepare`, pipelines those of
the pipeline files, as `vh yaml step` and `vh yaml pipeline` read them. What these two
commands do not know stands here: what a step installs, its environment, and the tasks,
which `vh yaml pipeline` even deletes.
"""

import argparse
import ast
import sys

from valohai.internals.pipeline import get_pipeline_from_source
from valohai.internals.yaml import parse_config_from_source
from valohai.yaml import config_to_yaml
from valohai_yaml.objs import Config
from valohai_yaml.objs.environment_variable import EnvironmentVariable
from valohai_yaml.objs.task import Task

from valohai_step.inputs import REPOSITORY

YAML = REPOSITORY / "valohai.yaml"
PAGE = REPOSITORY / "docs" / "parameters.md"

LOCK = "pip install --require-hashes -r {}"
# Each step's script, and what it installs.
STEPS = {
    "convert_superbai.py": LOCK.format("requirements/cpu.lock"),
    "weights.py": LOCK.format("requirements/cpu.lock"),
    "train.py": LOCK.format("requirements/gpu.lock"),
    "detect.py": LOCK.format("requirements/cpu.lock"),
    "upload_superbai.py": "pip install -r requirements/suite.txt",
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
        "description": "Trains on several machines at once, as one.",
        "execution-count": 2,
        "on-child-error": "stop-all-and-error",
        "parameters": [],
    },
]

PAGE_HEAD = """\
# Parameters and inputs

All of them, step by step, as `python -m valohai_step.write_yaml` reads them from the
scripts. On your own machine they are `--NAME=value` for a script and
`--STEP.NAME=value` for `python pipeline.py`. On Valohai they are fields of the web
form, `--STEP.NAME=value` for `vh pipeline run`, and `--NAME=value`, with dashes instead
of underscores, for `vh exec run` and `vh task run`.
"""


def build_config():
    """Returns the `valohai_yaml.objs.Config` that the scripts stand for."""
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


def parameters_page(config):
    """Returns the Markdown of the tables of all parameters and inputs."""
    parts = [PAGE_HEAD]
    for step in config.steps.values():
        parts.append(f"\n## {step.name}\n\n{step.description}\n\n")
        rows = [
            (f"`{p.name}`", p.category, _default(p), _range(p), p.description)
            for p in step.parameters.values()
        ]
        columns = ("parameter", "group", "default", "values", "")
        parts.append(_table(columns, rows))
        rows = [
            (f"`{i.name}`", "optional" if i.optional else "required", i.description)
            for i in step.inputs.values()
        ]
        parts.append("\n" + _table(("input", "", ""), rows))
    for pipeline in config.pipelines.values():
        if pipeline.parameters:
            parts.append(f"\n## Pipeline {pipeline.name}\n\n")
            rows = [
                (f"`{p.name}`", _default(p), ", ".join(p.targets))
                for p in pipeline.parameters
            ]
            parts.append(_table(("parameter", "default", "sets"), rows))
    return "".join(parts)


def _default(parameter):
    text = str(parameter.default)
    if isinstance(parameter.default, bool):
        text = text.lower()
    return f"`{text}`" if text else ""


def _range(parameter):
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    config = build_config()
    texts = {YAML: config_to_yaml(config), PAGE: parameters_page(config)}
    changed = [
        path
        for path, text in texts.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path in changed:
        name = path.relative_to(REPOSITORY)
        print(f"{name}: not what the scripts say" if check else f"{name} written")
        if not check:
            path.write_text(texts[path], encoding="utf-8")
    if not changed:
        print("valohai.yaml and docs/parameters.md are what the scripts say")
    return int(check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
