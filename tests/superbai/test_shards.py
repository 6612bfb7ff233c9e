"""Records in shards, written by one process and by several."""

import os
import re
import resource
import signal
import time

import numpy as np
import pytest
import suite_export
from suite_export import box, build, labelled

from superbai import shards
from yolov3_tf2.data import records
from yolov3_tf2.errors import InputError, describe


class Bar:
    n = 0

    def update(self, number):
        self.n += number


@pytest.fixture
def exports(tmp_path):
    """Opens an export of a number of images, each with its own box."""
    opened = []

    def make(number, change=None):
        items = [
            labelled(
                f"{n}.jpg", box(n % 50, 2, 3 + n % 9, 4), box(60, 40, -9, -9, "person")
            )
            for n in range(number)
        ]
        images, labels = build(items)
        if change:
            change(images, labels)
        opened.append(suite_export.open_export(tmp_path, images, labels))
        return opened[-1]

    yield make
    for export in opened:
        export.close()


def read(written_shards):
    paths = [shard.path for shard in written_shards]
    rows = records.read_examples(paths, range(sum(map(records.count_records, paths))))
    return [(row["source_id"].numpy().decode(), row["boxes"].numpy()) for row in rows]


def test_plan(tmp_path):
    planned = shards.plan_shards({"train": list(range(10)), "test": [10]}, tmp_path, 4)
    assert [(shard.path.name, shard.items) for shard in planned] == [
        ("train-00000-of-00003.tfrecord", [0, 1, 2]),
        ("train-00001-of-00003.tfrecord", [3, 4, 5]),
        ("train-00002-of-00003.tfrecord", [6, 7, 8, 9]),
        ("test-00000-of-00001.tfrecord", [10]),
    ]


def test_several_processes_write_the_same_as_one(tmp_path, exports, monkeypatch):
    monkeypatch.setattr(shards, "_IMAGES_PER_PROCESS", 10)
    results = []
    for processes in (1, 3):
        export = exports(100)
        by_split = {"train": export.items[:70], "test": export.items[70:]}
        planned = shards.plan_shards(by_split, tmp_path / str(processes), 16)
        planned[0].path.parent.parent.mkdir()
        bar, shown = Bar(), {"ds/5.jpg", "ds/80.jpg", "ds/81.jpg"}
        started = []
        real = shards._write_in_parallel
        monkeypatch.setattr(
            shards,
            "_write_in_parallel",
            lambda *a, real=real, started=started: started.append(1) or real(*a),
        )
        written = shards.write_shards(export, planned, shown, bar, processes)
        monkeypatch.setattr(shards, "_write_in_parallel", real)
        assert bool(started) == (processes > 1)
        assert bar.n == 100
        assert sum(w.counts["images"] for w in written if w.split == "train") == 70
        assert sum(w.counts["box", 1] for w in written) == 100
        assert shown <= {r.source_id for w in written for r in w.shown}
        assert export.notes.changed == {
            "boxes with negative width or height: corners swapped": 100
        }
        results.append(read(planned))
    assert [name for name, _ in results[0]] == [f"ds/{n}.jpg" for n in range(100)]
    for (name, boxes), (other, other_boxes) in zip(*results, strict=True):
        assert name == other
        np.testing.assert_array_equal(boxes, other_boxes)


def test_an_error_in_a_process_ends_the_others(tmp_path, exports, monkeypatch):
    monkeypatch.setattr(shards, "_IMAGES_PER_PROCESS", 10)

    export = exports(100)
    read_item = export.read

    def read_or_fail(item, notes):
        if item.key == "30.jpg":
            raise OSError("the disk is gone")
        return read_item(item, notes)

    monkeypatch.setattr(export, "read", read_or_fail)
    planned = shards.plan_shards({"train": export.items}, tmp_path / "out", 10)
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="the disk is gone"):
        shards.write_shards(export, planned, set(), Bar(), 2)
    assert not shards.multiprocessing.active_children()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_names_the_shard(tmp_path, exports, monkeypatch, processes):
    monkeypatch.setattr(shards, "_IMAGES_PER_PROCESS", 10)
    export = exports(40)
    folder = tmp_path / ".partial-x7f3"
    folder.mkdir()
    planned = shards.plan_shards({"train": export.items}, folder, 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    read_item = export.read

    def read_on_full_disk(item, notes):
        # Here, as starting processes needs files in memory.
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        return read_item(item, notes)

    monkeypatch.setattr(export, "read", read_on_full_disk)
    try:
        with pytest.raises(OSError) as caught:
            shards.write_shards(export, planned, set(), Bar(), processes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    name = r"train/train-0000\d-of-00002.tfrecord"
    expected = rf"{tmp_path}/{name} cannot be written: File too large"
    assert re.fullmatch(expected, describe(caught.value))


def damage(images, labels):
    """Three images and three labels that cannot be used."""
    images["ds/7.jpg.jpg"] = b""
    images["ds/30.jpg.jpg"] = b"no image"
    images["ds/31.jpg.jpg"] = images["ds/31.jpg.jpg"][:300]
    labels["labels/50.json"] = b'{"objects": ['
    (thing, _) = labels["labels/51.json"]["objects"]
    thing["annotation"]["coord"]["x"] = float("nan")
    (_, thing) = labels["labels/99.json"]["objects"]
    thing |= {"class_id": "?", "class_name": "ghost"}


REASONS = {
    "ds/7.jpg": "got 0 bytes",
    "ds/30.jpg": "got 8 bytes starting with b'no image'",
    "ds/31.jpg": "got 300 bytes",
    "ds/50.jpg": "labels/50.json: malformed JSON",
    "ds/51.jpg": "x: expected a finite number, got nan",
    "ds/99.jpg": "class 'ghost'",
}


@pytest.mark.parametrize("processes", [1, 3])
def test_all_that_cannot_be_read_is_named_in_one_run(
    tmp_path, exports, monkeypatch, processes
):
    monkeypatch.setattr(shards, "_IMAGES_PER_PROCESS", 10)
    export = exports(100, damage)
    by_split = {"train": export.items[:70], "test": export.items[70:]}
    planned = shards.plan_shards(by_split, tmp_path, 16)
    written = shards.write_shards(export, planned, {"ds/7.jpg"}, Bar(), processes)
    assert [name for name, _ in export.notes.unreadable] == list(REASONS)
    for name, reason in export.notes.unreadable:
        assert REASONS[name] in reason
    with pytest.raises(InputError) as caught:
        shards.check_unreadable(export, 5)
    message = str(caught.value)
    assert "labels.zip: 6 of 100 labelled images cannot be used" in message
    assert all(name in message for name in REASONS)
    assert message.endswith("leave them out with --max_unreadable=6.")
    # Accepted, they are left out and counted.
    shards.check_unreadable(export, 6)
    reason = "images with an unreadable file or label"
    assert export.notes.left_out == {reason: 6}
    names = [name for name, _ in read(planned)]
    assert names == [f"ds/{n}.jpg" for n in range(100) if f"ds/{n}.jpg" not in REASONS]
    assert sum(w.counts["images"] for w in written) == 94


def test_an_error_names_the_first_ten_of_many(tmp_path, exports):
    export = exports(12, lambda images, _: images.update(dict.fromkeys(images, b"x")))
    planned = shards.plan_shards({"train": export.items}, tmp_path, 50)
    written = shards.write_shards(export, planned, set(), Bar(), 1)
    with pytest.raises(InputError, match=r"12 of 12 .*ds/9\.jpg \(.*and 2 more"):
        shards.check_unreadable(export, 0)
    shards.check_unreadable(export, 12)
    with pytest.raises(InputError, match="for train: of its 12, 12 cannot be read"):
        shards.check_splits(written, planned, "labels.zip")


def test_a_meta_that_cannot_be_read_is_one_image(tmp_path, exports):
    def change(images, labels):
        labels[suite_export.meta_name("3.jpg")] = b"{"
        labels[suite_export.meta_name("4.jpg")]["label_path"] = ["labels/none.json"]

    export = exports(9, change)
    names = [name for name, _ in export.notes.unreadable]
    assert names == ["meta/ds/3.jpg.json", "meta/ds/4.jpg.json"]
    assert len(export.items) == 7 and export.num_labelled == 9
    # Its image has a label, if not a readable one.
    assert not export.notes.left_out
    with pytest.raises(InputError, match="2 of 9 labelled images cannot be used"):
        shards.check_unreadable(export, 1)


def test_a_killed_process_is_reported(tmp_path, exports, monkeypatch):
    monkeypatch.setattr(shards, "_IMAGES_PER_PROCESS", 10)
    export = exports(100)
    parent, read_item = os.getpid(), export.read

    def read_or_die(item, notes):
        if item.key == "42.jpg" and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return read_item(item, notes)

    monkeypatch.setattr(export, "read", read_or_die)
    planned = shards.plan_shards({"train": export.items}, tmp_path / "out", 10)
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="was killed; is there too little memory"):
        shards.write_shards(export, planned, set(), Bar(), 2)


def test_a_split_without_a_record_is_refused(tmp_path, exports):
    export = exports(2)
    planned = shards.plan_shards({"train": export.items}, tmp_path, 10)
    written = shards.write_shards(export, planned, set(), Bar(), 1)
    shards.check_splits(written, planned, "labels.zip")
    monkey = [w._replace(counts=shards.Counter()) for w in written]
    with pytest.raises(InputError, match=r"labels\.zip: no images left for train"):
        shards.check_splits(monkey, planned, "labels.zip")
