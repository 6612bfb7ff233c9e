"""What the layout promises: who may import whom."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = sorted((REPOSITORY / "yolov3_tf2").glob("*.py"))


def imported(path):
    """The modules that a file imports anywhere in it, by their full names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: p.name)
def test_the_package_knows_neither_valohai_nor_the_suites_sdk(path):
    roots = {name.partition(".")[0] for name in imported(path)}
    assert not roots & {"valohai", "valohai_yaml", "papi", "spb", "spb_label"}
    assert not roots & {"step", "step_inputs", "local_run", "local_worker", "samples"}


@pytest.mark.parametrize("name", ["boxes", "grid", "model", "loss"])
def test_network_loss_and_boxes_run_on_any_backend(name):
    roots = {
        module.partition(".")[0]
        for module in imported(REPOSITORY / "yolov3_tf2" / f"{name}.py")
    }
    assert "tensorflow" not in roots


def test_the_package_has_no_import_cycle():
    import graphlib

    graph = {
        path.stem: {
            name.split(".")[1]
            for name in imported(path)
            if name.startswith("yolov3_tf2.")
        }
        for path in PACKAGE
    }
    list(graphlib.TopologicalSorter(graph).static_order())
