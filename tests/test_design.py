"""What the layout promises: which rooms there are, and who may import whom."""

import ast
import graphlib

import pytest
from project import REPOSITORY

PACKAGES = ("yolov3_tf2", "superbai", "valohai_step")
PIPELINES = ("pipeline.py", "label_pipeline.py")

# What every room may import.
BASE = ("yolov3_tf2.errors", "yolov3_tf2.names")
# Each room, and what of the project it may import besides itself. The longest name that
# begins a module's is its room.
ROOMS = {
    "yolov3_tf2.errors": (),
    "yolov3_tf2.names": (),
    "yolov3_tf2.files": BASE,
    "yolov3_tf2.network.variants": BASE,
    "yolov3_tf2.boxes": (*BASE, "yolov3_tf2.network.variants"),
    "yolov3_tf2.network": (
        *BASE,
        "yolov3_tf2.network.variants",
        "yolov3_tf2.boxes",
    ),
    "yolov3_tf2.data": (
        *BASE,
        "yolov3_tf2.network.variants",
        "yolov3_tf2.boxes",
    ),
    "yolov3_tf2.inference": (
        *BASE,
        "yolov3_tf2.files",
        "yolov3_tf2.network",
        "yolov3_tf2.boxes",
        "yolov3_tf2.data",
    ),
    "yolov3_tf2.evaluation": (
        *BASE,
        "yolov3_tf2.files",
        "yolov3_tf2.network",
        "yolov3_tf2.boxes",
        "yolov3_tf2.data",
        "yolov3_tf2.inference",
    ),
    "yolov3_tf2.training.workers": BASE,
    "yolov3_tf2.training": (
        *BASE,
        "yolov3_tf2.files",
        "yolov3_tf2.network",
        "yolov3_tf2.boxes",
        "yolov3_tf2.data",
        "yolov3_tf2.inference",
        "yolov3_tf2.evaluation",
        "yolov3_tf2.training.workers",
    ),
    "superbai.matching": (*BASE, "yolov3_tf2.files"),
    "superbai": (
        *BASE,
        "superbai.matching",
        "yolov3_tf2.files",
        "yolov3_tf2.data.contents",
        "yolov3_tf2.data.records",
    ),
    "valohai_step": BASE,
    "valohai_step.training_outputs": ("yolov3_tf2", "valohai_step"),
    "valohai_step.cluster": ("yolov3_tf2", "valohai_step"),
    "valohai_step.local.sample": ("yolov3_tf2", "valohai_step"),
}
# What a room may not import of other people's packages.
FORBIDDEN = {
    "yolov3_tf2": {"valohai", "valohai_yaml", "spb", "spb_label", "argparse"},
    "superbai": {"valohai", "valohai_yaml", "argparse"},
    "valohai_step": {"spb", "spb_label"},
    "yolov3_tf2.files": {"tensorflow", "keras"},
    # These run on any backend of Keras.
    "yolov3_tf2.network.variants": {"tensorflow"},
    "yolov3_tf2.network.layers": {"tensorflow"},
    "yolov3_tf2.network.model": {"tensorflow"},
    "yolov3_tf2.network.folding": {"tensorflow"},
    "yolov3_tf2.boxes.geometry": {"tensorflow"},
    "yolov3_tf2.boxes.anchors": {"tensorflow"},
    "yolov3_tf2.boxes.assignment": {"tensorflow"},
    "yolov3_tf2.boxes.decoding": {"tensorflow"},
    "yolov3_tf2.training.loss": {"tensorflow"},
}


def find_modules(root):
    """Returns the files of the packages below a root by their modules' names."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join(parts).removesuffix(".__init__")] = path
    return modules


def find_imports(path, modules, top_level=False):
    """Returns the modules that a file imports, other people's by their full names.

    Args:
        path: of the file.
        modules: names of the project's own modules.
        top_level: leave out what functions import when they are called.
    """
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules else node.module)
    return found


def starts_with(name, prefix):
    return name == prefix or name.startswith(f"{prefix}.")


def find_room(name):
    """Returns the room of a module, None where it lies in none."""
    rooms = [room for room in ROOMS if starts_with(name, room)]
    return max(rooms, key=len, default=None)


def find_violations(root):
    """Returns what breaks the layout of the project at `root`, as texts."""
    modules = find_modules(root)
    scripts = {path.stem for path in root.glob("*.py")}
    found, graph = [], {}
    for name, path in modules.items():
        room, imports = find_room(name), find_imports(path, modules)
        if path.name == "__init__.py":
            if imports:
                found.append(f"{name}: an __init__.py imports")
            continue
        if room is None:
            found.append(f"{name}: in no room")
            continue
        own = {each for each in imports if each.partition(".")[0] in PACKAGES}
        graph[name] = own
        for each in own:
            allowed = find_room(each) == room or any(
                starts_with(each, other) for other in ROOMS[room]
            )
            if not allowed:
                found.append(f"{name}: imports {each}")
        for prefix, forbidden in FORBIDDEN.items():
            for each in imports if starts_with(name, prefix) else ():
                if each.partition(".")[0] in forbidden:
                    found.append(f"{name}: imports {each}")
        found += [f"{name}: imports a script" for each in imports if each in scripts]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append(f"a cycle: {' -> '.join(error.args[1])}")
    for name in PIPELINES:
        for each in find_imports(root / name, modules, top_level=True):
            if each.partition(".")[0] in {*PACKAGES, *scripts}:
                found.append(f"{name}: imports {each} at its top")
    for path in root.glob("*.py"):
        for each in find_imports(path, modules):
            if each in scripts:
                found.append(f"{path.name}: imports the script {each}")
    return found


def test_the_layout_is_kept():
    assert find_violations(REPOSITORY) == []


@pytest.mark.parametrize(
    ("module", "line", "violation"),
    [
        ("yolov3_tf2/files/new.py", "import valohai", "imports valohai"),
        ("yolov3_tf2/files/new.py", "import tensorflow as tf", "imports tensorflow"),
        ("yolov3_tf2/files/new.py", "from superbai import export", "imports superbai"),
        ("yolov3_tf2/files/new.py", "import train", "imports a script"),
        ("yolov3_tf2/new.py", "import os", "in no room"),
        ("yolov3_tf2/training/loss.py", "import tensorflow", "imports tensorflow"),
        (
            "yolov3_tf2/boxes/new.py",
            "from yolov3_tf2.network import model",
            "imports yolov3_tf2.network.model",
        ),
        (
            "yolov3_tf2/inference/new.py",
            "def f():\n    from yolov3_tf2.training.loss import yolo_loss",
            "imports yolov3_tf2.training.loss",
        ),
        ("superbai/new.py", "from yolov3_tf2.network import model", "imports yolov3"),
        ("superbai/new.py", "from valohai_step import inputs", "imports valohai_step"),
        ("valohai_step/new.py", "from yolov3_tf2.files import images", "imports yolov"),
        ("valohai_step/new.py", "import superbai.export", "imports superbai"),
        ("valohai_step/__init__.py", "import os", "an __init__.py imports"),
        ("superbai/upload/sdk.py", "from superbai.upload import project", "a cycle"),
        ("pipeline.py", "from valohai_step import inputs", "at its top"),
        ("detect.py", "import train", "imports the script train"),
    ],
)
def test_a_violation_is_found(module, line, violation, tmp_path):
    for name in find_modules(REPOSITORY).values():
        copy = tmp_path / name.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(name.read_bytes())
    for path in REPOSITORY.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / module
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")
    assert any(violation in text for text in find_violations(tmp_path))
