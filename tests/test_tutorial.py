"""docs/tutorial.md: its program runs, and its commands have options that exist."""

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
PIPELINE_OPTIONS = {
    parameter.name for parameter in CONFIG.pipelines["train-superbai"].parameters
}


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
    splits = [
        json.loads((tmp_path / f"{n}.json").read_text()) for n in ("train", "test")
    ]
    expected = [a for a in coco["annotations"] if a["category_id"] != 3]
    assert sorted(a["id"] for split in splits for a in split["annotations"]) == [
        a["id"] for a in expected
    ]
    train, test = ({i["id"] for i in split["images"]} for split in splits)
    assert not train & test
    assert train | test == {a["image_id"] for a in expected}
    assert len(test) == pytest.approx(len(train) / 4, abs=1)
    for split, image_ids in zip(splits, (train, test), strict=True):
        assert {a["image_id"] for a in split["annotations"]} == image_ids
        assert "dog" not in [c["name"] for c in split["categories"]]


def step_options(name):
    step = CONFIG.steps[name]
    return {*step.parameters, *step.inputs}


def test_the_commands_have_options_that_exist():
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
                assert option in step_options(scripts[script].name), line
            elif script == "pipeline.py" and option != "pipeline":
                node, _, name = option.rpartition(".")
                assert name in (step_options(node) if node else PIPELINE_OPTIONS), line
    assert {"upload_superbai.py", "detect.py", "pipeline.py"} <= seen
