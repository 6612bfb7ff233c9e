r"""Random data sets whose names collide: no label ever gets another one's image.

cd tests/helpers && PYTHONPATH=.:../.. python \
    ../superbai/data_sets/test_data_set_random.py 100000
"""

import random
import sys
import tempfile
from pathlib import Path

import suite_export
from annotated_data import as_json, coco_json, open_data, voc_xml, yolo_lines

from yolov3_tf2.errors import InputError

NUMBER = 120
SIZE = (64, 48)
GROUPS = ("train", "val", "test", "cam1", "cam2", "images")
NAMES = ("1", "2", "a/1", "b/1", "a/2")
# Where the labels and the images of a group are.
LAYOUTS = {
    "coco beside": ("{group}/_annotations.coco.json", "{group}/{name}"),
    "coco apart": ("annotations/{group}.json", "images/{group}/{name}"),
    "coco named": ("annotations/instances_{group}2017.json", "{group}2017/{name}"),
    "coco in one": ("labels.json", "{group}/{name}"),
    "yolo below": ("{group}/labels/{name}", "{group}/images/{name}"),
    "yolo above": ("labels/{group}/{name}", "images/{group}/{name}"),
    "yolo beside": ("{group}/{name}", "{group}/{name}"),
    "voc beside": ("{group}/{name}", "{group}/{name}"),
    "voc": ("{group}/Annotations/{name}", "{group}/JPEGImages/{name}"),
}


def make_data_set(rng):
    """Returns labels, images, and the box of each image by its bytes.

    Also the layout and how many images are left out.
    """
    layout = rng.choice(list(LAYOUTS))
    label_place, image_place = LAYOUTS[layout]
    groups = rng.sample(GROUPS, rng.randint(1, 3))
    truth, images, objects, gone = {}, {}, {}, 0
    lost = {group for group in groups if rng.random() < 0.3}
    for group in groups:
        for name in rng.sample(NAMES, rng.randint(1, len(NAMES))):
            number = len(truth)
            encoded = suite_export.encoded_image((number, 0, 0), "PNG")
            xyxy = (1.0, 2.0, 3.0 + number, 40.0)
            truth[encoded] = xyxy
            path = image_place.format(group=group, name=name)
            objects.setdefault(group, []).append((name, path, xyxy))
            if group in lost or rng.random() < 0.05:
                gone += 1
            else:
                images[f"{path}.png"] = encoded
    return layout, write_labels(layout, label_place, objects), images, truth, gone


def write_labels(layout, place, objects):
    labels = {"classes.txt": b"cat"} if not layout.startswith("coco") else {}
    if layout == "coco in one":
        objects = {"": [x for each in objects.values() for x in each]}
    for group, each in objects.items():
        if layout.startswith("coco"):
            whole = layout == "coco in one"
            listed = [(f"{path if whole else n}.png", *SIZE) for n, path, _ in each]
            boxes = [
                (n, 0, x, y, right - x, bottom - y)
                for n, (_, _, (x, y, right, bottom)) in enumerate(each)
            ]
            labels[place.format(group=group)] = as_json(
                coco_json(listed, boxes, ["cat"])
            )
        for name, _, xyxy in each if not layout.startswith("coco") else ():
            path = place.format(group=group, name=name)
            if layout.startswith("yolo"):
                labels[f"{path}.txt"] = yolo_lines([(0, xyxy)], SIZE)
            else:
                base = name.rpartition("/")[2]
                xml = voc_xml(f"{base}.png", SIZE, [("cat", xyxy, False)])
                labels[f"{path}.xml"] = xml
    return labels


def check_data_set(rng, folder):
    """Checks a random data set; returns what happened to it."""
    layout, labels, images, truth, gone = make_data_set(rng)
    if not images:
        return "empty"
    is_apart = rng.random() < 0.5
    if is_apart:
        around = rng.choice(("", "all/", "x/y/"))
        given = {f"{around}{path}": each for path, each in images.items()}
    else:
        labels, given = labels | images, None
    try:
        with open_data(folder, labels, given, skip_missing=True) as data:
            missing = data.notes.left_out["labelled images that are missing"]
            records = [data.read(item) for item in data.items]
    except InputError:
        assert gone, layout
        return "refused"
    for record in records:
        if record.boxes_px:
            (found,) = record.boxes_px
            expected = truth[record.encoded]
            assert all(abs(a - b) < 2 for a, b in zip(found, expected, strict=True)), (
                layout,
                record.source_id,
            )
    with_boxes = sum(bool(record.boxes_px) for record in records)
    assert with_boxes + missing == len(truth), layout
    assert missing >= gone, layout
    return "whole" if not gone else "missing"


def check_many(number, seed):
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for index in range(number):
            rng = random.Random(f"{seed}-{index}")
            try:
                result = check_data_set(rng, Path(folder))
            except AssertionError as error:
                raise AssertionError(f"data set {seed}-{index}: {error}") from error
            results[result] = results.get(result, 0) + 1
    return results


def test_no_label_gets_the_image_of_another():
    results = check_many(NUMBER, 1)
    assert results["whole"] > NUMBER / 5 and results["missing"] > NUMBER / 10


if __name__ == "__main__":
    print(check_many(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else 1))
