"""What the README promises about commands, parameters and files."""

import re

import pytest
import valohai_yaml
from project import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PAGES.append(REPOSITORY / "benchmarks" / "README.md")
# Of `vh` itself, of pipeline.py, and of docker.
OTHER_OPTIONS = {"adhoc", "reuse", "environment", "pipeline", "help", "check"}
OTHER_OPTIONS |= {"autorestart", "rm", "user", "gpus", "build-arg"}
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
# Rows of the map of folders: folder, what it is, names of its files.
MAP_ROW = r"^\| `([\w/]+/)` \|.*\| (.*) \|$"
CONFIG = valohai_yaml.parse((REPOSITORY / "valohai.yaml").read_text(encoding="utf-8"))


def page_id(page):
    return page.relative_to(REPOSITORY).as_posix()


def test_ci_runs_the_readmes_test_command():
    command = "python -m pytest -n 2"
    assert f"pip install -r requirements/dev.txt && {command}\n" in README
    script = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert command in script and "pip install --quiet -r requirements/dev.txt" in script


@pytest.mark.parametrize("step", CONFIG.steps.values(), ids=lambda step: step.name)
def test_the_table_has_every_input(step):
    start = README.index(f"| `{step.name}` | `")
    row = README[start:].splitlines()[0]
    for name in step.inputs:
        assert f"`{name}`" in row


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_have_options_that_there_are(page):
    """Each `--name=value` and `--name value` of a documented command."""
    pipeline = CONFIG.pipelines["train-superbai"]
    known = {parameter.name for parameter in pipeline.parameters} | OTHER_OPTIONS
    for step in CONFIG.steps.values():
        known |= {*step.parameters, *step.inputs}
    for block in re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        for command in block.replace("\\\n", " ").splitlines():
            if re.match(r"(python \w+\.py|vh |docker )", command):
                for option in re.findall(r" --([\w.-]+)", command):
                    node, _, name = option.rpartition(".")
                    if re.match("vh (exec|task)", command):
                        name = name.replace("-", "_")
                    assert name in known, command
                    if node:
                        step = CONFIG.steps[node]
                        assert name in {*step.parameters, *step.inputs}, command


def test_every_file_that_is_named_exists():
    text = re.sub(MAP_ROW, "", README, flags=re.MULTILINE)
    for name in re.findall(r"`([\w/]+\.(?:py|yaml|lock|txt))`", text):
        if name != "classes.txt":  # A step writes it.
            assert (REPOSITORY / name).is_file(), name
    for page in PAGES:
        for name in re.findall(r"\]\((?!http)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / name).is_file(), f"{page.name}: {name}"


def github_anchor(heading):
    """Returns the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_anchor_that_is_linked_exists(page):
    links = re.findall(r"\]\((?!http)([^)#\s]*)#([^)]+)\)", page.read_text("utf-8"))
    for name, anchor in links:
        target = page.parent / name if name else page
        text = re.sub(r"```.*?```", "", target.read_text("utf-8"), flags=re.DOTALL)
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchor in map(github_anchor, headings), f"{name}#{anchor}"


def test_every_module_is_on_the_map():
    rows = re.findall(MAP_ROW, README, re.MULTILINE)
    listed = {
        f"{room}{name}" for room, names in rows for name in re.findall("`(.*?)`", names)
    }
    modules = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("yolov3_tf2", "superbai", "valohai_step")
        for path in (REPOSITORY / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert listed == modules
