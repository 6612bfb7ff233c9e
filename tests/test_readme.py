"""What the README promises about commands, parameters and files."""

import re
from pathlib import Path

import pytest
import valohai_yaml

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
CONFIG = valohai_yaml.parse((REPOSITORY / "valohai.yaml").read_text(encoding="utf-8"))


def test_ci_runs_the_readmes_test_command():
    command = "python -m pytest"
    assert f"pip install -r requirements-dev.txt && {command}\n" in README
    script = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert command in script and "pip install --quiet -r requirements-dev.txt" in script


@pytest.mark.parametrize("step", CONFIG.steps.values(), ids=lambda step: step.name)
def test_the_tables_have_every_parameter_and_input(step):
    start = README.index(f"| `{step.name}` | `")
    row = README[start:].splitlines()[0]
    for name in step.inputs:
        assert f"`{name}`" in row
    table = README[README.index("| step | parameter | default |") :]
    start = table.index(f"| `{step.name}` |")
    rows = table[start:].splitlines()
    own = [rows[0]]
    for line in rows[1:]:
        if not line.startswith("| |"):
            break
        own.append(line)
    cells = [re.findall(r"^\| [^|]*\| `(\w+)` \| (\S+) \|", line)[0] for line in own]
    assert sorted(cells) == sorted(
        (name, str(parameter.default) or "-")
        for name, parameter in step.parameters.items()
    )


def test_every_file_that_is_named_exists():
    for name in re.findall(r"`((?:yolov3_tf2/)?\w+\.(?:py|yaml))`", README):
        assert (REPOSITORY / name).is_file() or (
            REPOSITORY / "yolov3_tf2" / name
        ).is_file(), name
    for name in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (REPOSITORY / name).is_file(), name


def test_every_module_is_described():
    for path in [*REPOSITORY.glob("*.py"), *(REPOSITORY / "yolov3_tf2").glob("*.py")]:
        if path.name not in ("__init__.py", "errors.py"):
            assert f"{path.name}`" in README, path.name
