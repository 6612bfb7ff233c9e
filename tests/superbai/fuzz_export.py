"""Converts exports that were damaged at random; run as a program.

python fuzz_export.py CASES [FIRST]

Each case is a function of its number. It ends in complete outputs or in a documented
error; anything else is printed, and the exit status is 1.
"""

import copy
import json
import os
import random
import re
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "helpers")]
ARGUMENTS = [int(argument) for argument in sys.argv[1:]]
sys.argv[1:] = []

import suite_export  # noqa: E402
from absl import logging  # noqa: E402
from PIL import Image  # noqa: E402
from suite_export import box, labelled, polygon, rotated, shape  # noqa: E402

import convert_superbai  # noqa: E402
from yolov3_tf2.data import records  # noqa: E402
from yolov3_tf2.errors import InputError  # noqa: E402

SECONDS, BYTES = 10, 2**30
CLASSES = (("car", "box"), ("person", "box"), ("car", "rbox"), ("road", "polygon"))
EVIL = [
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    "a",
    "NaN",
    "../../etc/passwd",
    "/etc/passwd",
    "\ud800",
    "a\nb",
    "\0",
    "가" * 300,
    "x" * 5000,
    [],
    {},
    [[]],
    {"a": {}},
    [None],
    [{}] * 500,
]
EVIL_NAMES = [
    "../a",
    "/a",
    "C:/a",
    ".",
    "..jpg",
    "project.json",
    "meta/",
    "meta/a.json",
    "meta//.json",
    "labels/0.json",
    "가.jpg",
    "x" * 3000,
    "__MACOSX/a",
    "a/../b",
]


def documented():
    """The messages of docs/superb-ai.md: a pattern, a group for each, and the texts."""
    text = (REPOSITORY / "docs" / "superb-ai.md").read_text(encoding="utf-8")
    table = text[text.index("| message |") :].splitlines()[2:]
    messages = [m for row in table for m in re.findall(r"`([^`]+)`", row.split("|")[1])]
    patterns = []
    for message in messages:
        pattern = re.escape(message)
        pattern = re.sub(r"labels\\\.zip|images\\\.zip|…", ".*", pattern)
        patterns.append(re.sub(r"\d+", r"[\\d,]+", pattern))
    return re.compile("|".join(f"({p})" for p in patterns), re.DOTALL), messages


def base(chance):
    """Returns a valid export: the entries of both zips.

    They are the same for the folder of `superb download`, which is one zip.
    """
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = Image.effect_noise((64, 48), 80).convert("RGB")
    encoded = [
        suite_export.encode(noise, "JPEG"),
        suite_export.encode(noise, "JPEG", exif=exif),
        suite_export.encode(noise, "PNG"),
        suite_export.encode(noise, "WEBP"),
        suite_export.encode(noise, "TIFF"),
        suite_export.encode(noise, "BMP"),
    ]
    objects = [
        box(1, 2, 30, 40),
        box(60, 40, -20, -9, "person"),
        polygon((1, 1), (9, 1), (9, 9)),
        rotated(30, 20, 9, 5, 45),
        shape("polyline", "road"),
    ]
    items = [
        labelled(
            f"{'sub/' * chance.randrange(2)}{number}.jpg",
            *chance.sample(objects, chance.randrange(len(objects))),
            dataset=chance.choice(["ds", "데이터"]),
            encoded=chance.choice(encoded),
            tags=[["train"], ["test"], [], ["night"], ["train"], ["valid"]][number],
            status="SUBMITTED"
            if number < 3
            else chance.choice(["SUBMITTED", "WORKING", "SKIPPED"]),
        )
        for number in range(chance.randrange(2, 7))
    ]
    generation = chance.choice(suite_export.GENERATIONS)
    if chance.random() < 0.25:
        entries = suite_export.build_download(items, generation, CLASSES)
        return entries, entries
    return suite_export.build(items, generation, CLASSES)


def replace_value(chance, labels):
    """Replaces a random value of a random JSON by something else."""
    name = chance.choice([n for n, content in labels.items() if content])
    labels[name] = copy.deepcopy(labels[name])
    place, places = labels[name], []

    def walk(value):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            places.append((value, key))
            if isinstance(inner, dict | list):
                walk(inner)

    if isinstance(place, dict | list):
        walk(place)
    if not places:
        labels[name] = chance.choice(EVIL)
        return
    value, key = chance.choice(places)
    if chance.random() < 0.3 and isinstance(value, dict):
        del value[key]
    elif chance.random() < 0.2 and isinstance(value, dict):
        value[chance.choice(EVIL_NAMES)] = value.pop(key)
    else:
        value[key] = chance.choice(EVIL)


def rename(chance, entries):
    """Gives an entry another name, or another entry's content."""
    name = chance.choice(list(entries))
    if chance.random() < 0.5:
        entries[chance.choice(EVIL_NAMES)] = entries.pop(name)
    else:
        entries[name] = entries[chance.choice(list(entries))]


def damage(chance, content):
    """Changes, removes or adds some bytes."""
    content = bytearray(content)
    for _ in range(chance.choice([1, 1, 3, 20])):
        place = chance.randrange(len(content) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            content[place : place + chance.choice([1, 4, 50])] = b""
        elif kind == 1:
            content[place:place] = chance.randbytes(chance.choice([1, 4, 50]))
        elif place < len(content):
            content[place] = chance.choice([0, 255, chance.randrange(256)])
    return bytes(content)


def write_case(number, folder):
    """Writes the two zips of a case; returns the parameters to convert them with."""
    chance = random.Random(number)
    images, labels = base(chance)
    kinds = chance.sample(
        ["value", "value", "name", "image", "json", "zip", "cut"],
        chance.choice([0, 1, 1, 1, 2, 3]),
    )
    for kind in kinds:
        entries = chance.choice([images, labels])
        if kind == "value":
            replace_value(chance, labels)
        elif kind == "name":
            rename(chance, entries)
        elif kind == "image":
            name = chance.choice(list(images))
            if isinstance(images[name], bytes):
                images[name] = damage(chance, images[name])
        elif kind == "json":
            name = chance.choice(list(labels))
            if not isinstance(labels[name], bytes):
                text = json.dumps(labels[name]).encode()
                labels[name] = damage(chance, text)
    method = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    zips = {"labels.zip": labels}
    if images is not labels:
        zips["images.zip"] = images
    for name, entries in zips.items():
        with zipfile.ZipFile(folder / name, "w", method) as archive:
            for entry, content in entries.items():
                if not isinstance(content, bytes):
                    content = json.dumps(content).encode()
                archive.writestr(entry, content)
    path = folder / chance.choice(list(zips))
    if "zip" in kinds:
        path.write_bytes(damage(chance, path.read_bytes()))
    if "cut" in kinds:
        content = path.read_bytes()
        path.write_bytes(content[: chance.randrange(len(content))])
    return {
        "test_fraction": 0.3,
        "images_per_shard": chance.choice([1, 2, 4096]),
        "polygons": chance.choice(["skip", "box"]),
        "include_unsubmitted": chance.choice([True, False]),
        "skip_missing": chance.choice([True, False]),
        "find_images_by": chance.choice(["path", "path", "key", "file_name"]),
        "group_by": chance.choice(["", "", "image", "folder", "dataset"]),
        "max_unreadable": chance.choice([0, 0, 3]),
    }


def check_outputs(folder):
    names = sorted(path.name for path in folder.iterdir())
    expected = ["classes.txt", "data.json", "preview.jpg", "test", "train"]
    assert names == [*expected, "validation"], names
    assert (folder / "classes.txt").read_text("utf-8").splitlines()
    with Image.open(folder / "preview.jpg") as preview:
        preview.load()
    for split in ("train", "test"):
        paths = sorted((folder / split).iterdir())
        number = sum(map(records.count_records, paths))
        assert number
        for row in records.read_examples(paths, range(number)):
            boxes = row["boxes"].numpy()
            assert ((boxes >= 0) & (boxes <= 1)).all()
            assert (boxes[:, 2:] > boxes[:, :2]).all()


def run_case(number, messages, texts):
    """Returns "whole", or the documented message that an error fits.

    Raises:
        AssertionError: it is neither, or took too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        outputs = folder / "outputs"
        os.environ["VH_OUTPUTS_DIR"] = str(outputs)
        values = write_case(number, folder)
        before = sorted(folder.iterdir())
        start = time.perf_counter()
        try:
            images = list(folder.glob("images.zip"))
            convert_superbai.convert(images, [folder / "labels.zip"], values)
            result = "whole"
        except InputError as error:
            message = messages.search(str(error))
            assert message, f"not documented: {error}"
            result = texts[message.lastindex - 1]
        seconds = time.perf_counter() - start
        assert seconds < SECONDS, f"took {seconds:.1f} s"
        if result == "whole":
            check_outputs(outputs)
            before.append(outputs)
        assert sorted(folder.iterdir()) == sorted(before)
    return result


def main():
    cases, first = ARGUMENTS[0], (ARGUMENTS[1:] or [0])[0]
    logging.set_verbosity(logging.FATAL)
    messages, texts = documented()
    results, failed = Counter(), []
    with Path(os.devnull).open("w") as nothing:
        stdout, sys.stdout = sys.stdout, nothing
        stderr, sys.stderr = sys.stderr, nothing
        for number in range(first, first + cases):
            try:
                results[run_case(number, messages, texts)] += 1
            except Exception:
                failed.append(f"case {number}:\n{traceback.format_exc()}")
        sys.stdout, sys.stderr = stdout, stderr
    # Not ru_maxrss, which a process inherits from its parent.
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    print(json.dumps({"failed": len(failed), "peak_bytes": peak, "cases": results}))
    print("\n".join(failed[:5]))
    sys.exit(bool(failed) or peak > BYTES)


if __name__ == "__main__":
    main()
