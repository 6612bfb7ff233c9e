"""docs/tutorial.md: its program runs, and its commands are those of the steps."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import valohai_yaml
from project import REPOSITORY

TEXT = (REPOSITORY / "docs" / "tutorial.md").read_text(encoding="utf-8")
CONFIG = valohai_yaml.parse((REPOSITORY / "valohai.yaml").read_text(encoding="utf-8"))


def test_coco_is_reduced_and_split(tmp_path):
    names = ["person", "dog", "car", "chair", "book", "bottle"]
    coco = {
        "categories": [{"id": 3 * i, "name": name} for i, name in enumerate(names)],
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(40, 0, -1)],
        "annotations": [
            {"id": i, "image_id": 1 + i % 39, "category_id": 3 * (i % 6)}
            for i in range(60)
        ],
    }
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(coco))
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    parts = [
        json.loads((tmp_path / f"{n}.json").read_text()) for n in ("train", "test")
    ]
    kept = [a for a in coco["annotations"] if a["category_id"] != 3]
    assert sorted(a["id"] for p in parts for a in p["annotations"]) == [
        a["id"] for a in kept
    ]
    images = [{i["id"] for i in part["images"]} for part in parts]
    assert not images[0] & images[1]
    assert images[0] | images[1] == {a["image_id"] for a in kept}
    assert len(images[1]) == pytest.approx(len(images[0]) / 4, abs=1)
    for part, shown in zip(parts, images, strict=True):
        assert {a["image_id"] for a in part["annotations"]} == shown
        assert "dog" not in [c["name"] for c in part["categories"]]


def test_the_commands_are_those_of_the_steps():
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    lines = [line for b in blocks for line in b.replace("\\\n", " ").splitlines()]
    scripts = {
        step.command[-1].split()[1].removeprefix("./"): step
        for step in CONFIG.steps.values()
    }
    seen = set()
    for line in lines:
        script = next((w for w in shlex.split(line) if w.endswith(".py")), None)
        seen.add(script)
        for option in re.findall(r"--([\w.-]+)", line):
            if script in scripts:
                known = {**scripts[script].parameters, **scripts[script].inputs}
                assert option in known, line
            elif script == "pipeline.py" and option != "pipeline":
                node, _, name = option.partition(".")
                step = CONFIG.steps[node]
                assert name in {**step.parameters, **step.inputs}, line
    assert {"upload_superbai.py", "detect.py", "pipeline.py"} <= seen
