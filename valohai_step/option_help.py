"""The `--help` of the step scripts and of `python pipeline.py`."""

import textwrap


def format_step_help(usage, description, declared, inputs):
    """Returns the help of a step script.

    Args:
        usage: the command, such as `python train.py`.
        description: what the step does.
        declared: the dict of parameters that the script passes to `valohai.prepare`.
        inputs: the dict of inputs that it passes.
    """
    lines = [f"usage: {usage} [--NAME VALUE …]", "", description]
    lines += ["", "Inputs:", *(format_option(*item) for item in inputs.items())]
    categories = dict.fromkeys(spec.get("category", "") for spec in declared.values())
    for category in categories:
        lines += ["", f"{category}:"]
        for name, spec in declared.items():
            if spec.get("category", "") == category:
                lines.append(format_option(name, spec))
    return "\n".join(lines)


def format_option(name, spec):
    """Returns the name, values, default and description of an option as lines.

    Args:
        name: without the dashes.
        spec: dict of a parameter or input, as `valohai.prepare` takes it.
    """
    facts = []
    if spec.get("choices"):
        facts.append(", ".join(map(str, spec["choices"])))
    elif spec.get("min") is not None and spec.get("max") is not None:
        facts.append(f"{spec['min']} to {spec['max']}")
    default = spec.get("default")
    if isinstance(default, bool):
        default = str(default).lower()
    if default not in (None, "", []):
        facts.append(f"default {default}")
    elif spec.get("optional"):
        facts.append("optional")
    else:
        facts.append("required")
    text = textwrap.fill(
        spec.get("description") or "",
        width=80,
        initial_indent=" " * 6,
        subsequent_indent=" " * 6,
    )
    return f"  --{name}  ({'; '.join(facts)})\n{text}"
