"""The input pipeline, on records written here."""

import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from superbai.labelled_image import Record
from yolov3_tf2.boxes.assignment import assign_boxes
from yolov3_tf2.boxes.letterbox import GREY, fit_image, letterbox, to_float
from yolov3_tf2.data import records
from yolov3_tf2.data.augment import STRENGTHS
from yolov3_tf2.data.dataset import build_dataset, build_training_dataset, iterate
from yolov3_tf2.data.jpeg import decode_image
from yolov3_tf2.data.record_files import WHOLE, RecordFiles, Share
from yolov3_tf2.errors import InputError
from yolov3_tf2.files.images import load_rgb
from yolov3_tf2.network.variants import VARIANTS

TINY = VARIANTS["yolov3-tiny"]
NAMES = ["cat", "dog"]
OFF = dict.fromkeys(STRENGTHS, 0.0)


def png(width, height, colour):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, rows, names=NAMES):
    """Writes records of (width, height, grey value, boxes in pixels, labels)."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, (width, height, grey, boxes, labels) in enumerate(rows):
            record = Record(
                f"ds/{number}.png",
                png(width, height, (grey,) * 3),
                "png",
                width,
                height,
                boxes,
                labels,
            )
            writer.write(records.serialize_example(record, names))
    return path


@pytest.fixture
def path(tmp_path):
    return write(
        tmp_path / "a.tfrecord",
        [
            (100, 50, 10, [(10, 10, 40, 30), (50, 0, 100, 50)], [1, 0]),
            (64, 64, 20, [], []),
            (30, 90, 30, [(0, 0, 30, 90)], [1]),
        ],
    )


def test_batches(path):
    batches = list(iterate(build_dataset(RecordFiles([path]), NAMES, TINY, 64, 2)))
    assert [b["images"].shape[0] for b in batches] == [2, 1]
    first = batches[0]
    assert first["images"].dtype == tf.float32
    # 100x50 becomes 64x32; its top lies on a corner of the coarsest cells, 0.
    np.testing.assert_allclose(first["images"][0, :32], 10 / 255, atol=1e-6)
    np.testing.assert_allclose(first["images"][0, 32:], GREY / 255)
    np.testing.assert_allclose(
        first["boxes"][0, :2], [[0.1, 0.1, 0.4, 0.3], [0.5, 0, 1, 0.5]], atol=1e-6
    )
    assert first["labels"][0, :2].numpy().tolist() == [1, 0]
    assert first["sizes"].numpy().tolist() == [[100, 50], [64, 64]]
    # Padding has no area.
    assert not first["boxes"][1].numpy().any()
    assert first["unassigned"].numpy().tolist() == [0, 0]
    placed = [np.asarray(t)[..., 4].sum(axis=(1, 2, 3)) for t in first["targets"]]
    assert np.sum(placed, axis=0).tolist() == [2, 0]
    expected, _ = assign_boxes(first["boxes"], first["labels"], TINY, 64)
    for ours, theirs in zip(first["targets"], expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_labels_follow_the_class_file_and_not_the_record(path):
    (batch,) = iterate(build_dataset(RecordFiles([path]), ["dog", "cat"], TINY, 64, 3))
    assert batch["labels"][0, :2].numpy().tolist() == [0, 1]


def test_class_names_in_the_unicode_form_of_macos(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "자동차") for form in ("NFC", "NFD"))
    rows = [(64, 64, 9, [(1, 1, 9, 9)], [1])]
    path = write(tmp_path / "a.tfrecord", rows, names=["cat", nfd])
    records.check_first_record(path, ["cat", nfc])
    (batch,) = iterate(build_dataset(RecordFiles([path]), ["cat", nfc], TINY, 64, 1))
    assert batch["labels"].numpy().tolist() == [[1, 0]]


def test_a_batch_without_any_box(tmp_path):
    path = write(tmp_path / "none.tfrecord", [(64, 64, 0, [], [])] * 2)
    (batch,) = iterate(build_dataset(RecordFiles([path]), NAMES, TINY, 64, 2))
    assert batch["boxes"].shape[1] >= 1 and not batch["boxes"].numpy().any()
    assert not any(np.asarray(t).any() for t in batch["targets"])


def training(
    paths, batch_size, strengths=OFF, sizes=(64,), seed=1, share=WHOLE, **options
):
    """Builds a training dataset, and the variable that holds its epoch."""
    epoch = tf.Variable(1, dtype=tf.int64)
    files = RecordFiles(paths, share)
    dataset = build_training_dataset(
        *(files, NAMES, TINY, list(sizes), batch_size, strengths, seed, epoch),
        **{"mosaic_epochs": 9, **options},
    )
    return dataset, epoch


def test_the_order_is_a_function_of_seed_and_epoch(tmp_path):
    rows = [(8, 8, value, [], []) for value in range(50)]
    path = write(tmp_path / "many.tfrecord", rows)

    def order(dataset):
        batches = list(iterate(dataset))
        images = np.concatenate([b["images"] for b in batches])
        values = np.round(images[:, 0, 0, 0] * 255).astype(int).tolist()
        assert np.concatenate([b["numbers"] for b in batches]).tolist() == values
        return values

    tf.random.set_seed(0)
    (one, epoch), (two, other_epoch) = (training([path], 8) for _ in "ab")
    first = order(one)
    assert sorted(first) == list(range(50)) and first != list(range(50))
    assert order(one) == first  # The same epoch again.
    epoch.assign(2)
    second = order(one)
    assert second != first and sorted(second) == list(range(50))
    # A training run resumed at the second epoch has the same order.
    other_epoch.assign(2)
    assert order(two) == second
    assert order(training([path], 8, seed=2)[0]) != first
    in_order = build_dataset(RecordFiles([path]), NAMES, TINY, 32, 8)
    assert order(in_order) == list(range(50))


def test_files_are_interleaved(tmp_path):
    paths = [
        write(
            tmp_path / f"{file}.tfrecord",
            [(8, 8, 40 * file + value, [], []) for value in range(file + 3)],
        )
        for file in range(5)
    ]
    values = [40 * file + value for file in range(5) for value in range(file + 3)]
    dataset, epoch = training(paths, 64)
    orders = []
    for number in (1, 2, 2):
        epoch.assign(number)
        (batch,) = iterate(dataset)
        orders.append(batch["numbers"].numpy().tolist())
        # The number of an image is its index in all files.
        shown = np.round(batch["images"].numpy()[:, 0, 0, 0] * 255).astype(int)
        assert shown.tolist() == [values[place] for place in orders[-1]]
        assert sorted(orders[-1]) == list(range(25))
    assert orders[0] != orders[1] == orders[2]
    # Even without the buffer of a shuffle.
    interleaved = [
        [int(number) for number, _ in RecordFiles(paths).interleaved([seed, 3])]
        for seed in (1, 2)
    ]
    assert interleaved[0] != interleaved[1]
    files = np.repeat(range(5), range(3, 8))
    assert all(sorted(files[order[:5]]) == list(range(5)) for order in interleaved)


def test_augmented_batches_are_a_function_of_seed_and_epoch(path):
    (one, epoch), (two, other_epoch) = (
        training([path], 3, STRENGTHS | {"mosaic": 1.0}, (64, 96, 128)) for _ in "ab"
    )
    seen = []
    for number in (3, 4, 5, 6):
        epoch.assign(number)
        other_epoch.assign(number)
        (ours,), (theirs,) = iterate(one), iterate(two)
        for name in ("images", "boxes", "labels"):
            np.testing.assert_array_equal(ours[name], theirs[name])
        seen.append(ours["images"].numpy())
        size = seen[-1].shape[1]
        assert size in (64, 96, 128)
        expected, _ = assign_boxes(ours["boxes"], ours["labels"], TINY, size)
        for target, other in zip(ours["targets"], expected, strict=True):
            np.testing.assert_array_equal(target, other)
    assert len({images.shape for images in seen}) > 1
    assert len({images.tobytes() for images in seen}) == 4


def test_no_thread_delays_the_end_of_a_pass(path):
    in_order = build_dataset(RecordFiles([path]), NAMES, TINY, 64, 3)
    for each in (in_order, training([path], 3)[0]):
        assert each.dataset.options().autotune.enabled is False


def test_mosaics_end(path):
    strengths = OFF | {"mosaic": 1.0}
    dataset, epoch = training([path], 3, strengths, mosaic_epochs=1)
    plain, plain_epoch = training([path], 3)
    different = []
    for number in (1, 2):
        epoch.assign(number)
        plain_epoch.assign(number)
        (ours,), (theirs,) = iterate(dataset), iterate(plain)
        different.append((ours["images"].numpy() != theirs["images"].numpy()).any())
    assert different == [True, False]


def test_strength_0_equals_the_evaluation_dataset(path):
    (ours,) = iterate(training([path], 3)[0])
    (theirs,) = iterate(build_dataset(RecordFiles([path]), NAMES, TINY, 64, 3))
    order = np.argsort(ours["numbers"])
    np.testing.assert_array_equal(ours["images"].numpy()[order], theirs["images"])
    np.testing.assert_array_equal(ours["boxes"].numpy()[order], theirs["boxes"])


def test_the_last_batch_of_mosaics_can_be_filled(path):
    strengths = STRENGTHS | {"mosaic": 1.0}
    dataset, _ = training([path], 2, strengths, fill_last_batch=True)
    first, last = iterate(dataset)
    assert first["weights"].numpy().tolist() == [1, 1]
    assert last["weights"].numpy().tolist() == [1, 0]
    assert sorted(first["numbers"].numpy().tolist() + [int(last["numbers"][0])]) == [
        *range(3)
    ]


def test_a_class_that_is_not_in_the_class_file(path):
    with pytest.raises(InputError, match=r"not in the class file.*cat.*ds/0.png"):
        list(iterate(build_dataset(RecordFiles([path]), ["dog"], TINY, 64, 2)))


def test_a_damaged_record(path):
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=r"a\.tfrecord: record 0 is damaged: corrupted"
    ):
        list(iterate(build_dataset(RecordFiles([path]), NAMES, TINY, 64, 2)))


def test_an_image_that_cannot_be_decoded(tmp_path):
    path = tmp_path / "bad.tfrecord"
    record = Record("ds/x", b"no image", "jpeg", 8, 8, [], [])
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(records.serialize_example(record, NAMES))
    with pytest.raises(
        InputError, match=r"1 images cannot be decoded: ds/x \(.*bad\.tfrecord: "
    ):
        list(iterate(build_dataset(RecordFiles([path]), NAMES, TINY, 64, 2)))


def test_records_of_another_schema(tmp_path):
    path = tmp_path / "other.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with pytest.raises(InputError, match=r"other\.tfrecord: record 0 .*image/"):
        list(iterate(build_dataset(RecordFiles([path]), NAMES, TINY, 64, 2)))


def test_the_last_batch_can_be_filled(path):
    files = RecordFiles([path])
    dataset = build_dataset(files, NAMES, TINY, 64, 2, fill_last_batch=True)
    first, last = iterate(dataset)
    assert first["weights"].numpy().tolist() == [1, 1]
    assert last["weights"].numpy().tolist() == [1, 0]
    for name in ("images", "boxes", "sizes"):
        repeated, original = last[name][1].numpy(), first[name][0].numpy()
        np.testing.assert_array_equal(repeated, original[: len(repeated)])


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize("counts", [(2, 9), (3, 4, 0, 5)])
def test_workers_share_the_records(tmp_path, workers, counts):
    paths, total = [], 0
    for file, count in enumerate(counts):
        rows = [(8, 8, total + i, [], []) for i in range(count)]
        paths.append(write(tmp_path / f"{file}.tfrecord", rows))
        total += count
    for kind in ("training", "test"):
        seen, lengths = [], set()
        for index in range(workers):
            share = Share(index, workers)
            dataset = (
                training(paths, 2, share=share)[0]
                if kind == "training"
                else build_dataset(RecordFiles(paths, share), NAMES, TINY, 64, 2)
            )
            batches = list(iterate(dataset))
            lengths.add(len(batches))
            for batch in batches:
                assert batch["images"].shape[0] == 2
                shown = np.round(batch["images"].numpy()[:, 0, 0, 0] * 255)
                np.testing.assert_array_equal(shown, batch["numbers"])
                is_own = batch["weights"].numpy() > 0
                seen += batch["numbers"].numpy()[is_own].tolist()
        # All records once, and the same number of steps for every worker.
        assert sorted(seen) == list(range(total))
        assert lengths == {RecordFiles(paths, Share(0, workers)).steps(2)}


def test_a_worker_opens_only_the_files_of_its_share(tmp_path):
    rows = [(8, 8, value, [], []) for value in range(4)]
    paths = [write(tmp_path / f"{i}.tfrecord", rows) for i in range(4)]
    files = RecordFiles(paths, Share(1, 2))
    assert [Path(path).name for path, *_ in files._parts] == [
        "2.tfrecord",
        "3.tfrecord",
    ]
    paths[0].write_bytes(b"\0" * paths[0].stat().st_size)
    assert [int(number) for number, _ in files.in_order()] == list(range(8, 16))


def jpeg_record(tmp_path, image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    path = tmp_path / "jpeg.tfrecord"
    encoded = buffer.getvalue()
    record = Record("ds/x", encoded, "jpeg", *image.size, [], [])
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(records.serialize_example(record, NAMES))
    return path, np.asarray(load_rgb(encoded, "x"))


@pytest.mark.parametrize("sides", [(61, 47), (300, 200)])
def test_images_are_decoded_as_in_detection(tmp_path, sides):
    noise = Image.effect_noise((64, 64), 120).resize(sides).convert("RGB")
    path, array = jpeg_record(tmp_path, noise)
    (batch,) = iterate(build_dataset(RecordFiles([path]), NAMES, TINY, 64, 1))
    np.testing.assert_array_equal(batch["images"][0], to_float(letterbox(array, 64)))


@pytest.mark.parametrize("shorten", [1.9, 2, 2.6, 4, 7, 8.3, 20])
def test_large_jpegs_are_decoded_at_a_smaller_scale(tmp_path, shorten):
    size = 96
    width, height = int(size * shorten), int(size * shorten * 0.7)
    noise = np.random.default_rng(0).integers(0, 255, (7, 9, 3), "uint8")
    smooth = Image.fromarray(noise)
    smooth = smooth.resize((width, height), Image.Resampling.BICUBIC)
    smooth.paste((255, 0, 0), (width // 2, height // 3, width, height))
    path, array = jpeg_record(tmp_path, smooth)
    (example,) = map(records.parse_example, tf.data.TFRecordDataset(str(path)))
    inner, _ = fit_image(width, height, size)
    example |= {s: tf.cast(example[s], tf.int32) for s in ("width", "height")}
    decoded = decode_image(example, inner)
    assert size <= decoded.shape[1] < max(2 * size, width // 8 + 2)
    (batch,) = iterate(training([path], 1, sizes=[size])[0])
    difference = np.abs(batch["images"][0] - to_float(letterbox(array, size)))
    assert difference.mean() < 0.006
    assert np.quantile(difference, 0.99) < 0.06


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("sides", [(640, 480), (80, 60), (160, 61)])
def test_a_record_with_other_sides_than_its_image(tmp_path, kind, sides):
    path = tmp_path / "wrong.tfrecord"
    buffer = io.BytesIO()
    Image.new("RGB", (160, 60)).save(buffer, kind)
    record = Record("ds/x", buffer.getvalue(), kind.lower(), *sides, [], [])
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(records.serialize_example(record, NAMES))
    with pytest.raises(
        InputError, match=f"not those of its image.*{sides[0]} {sides[1]}.*ds/x"
    ):
        list(iterate(build_dataset(RecordFiles([path]), NAMES, TINY, 64, 1)))
    with pytest.raises(InputError, match="not those of its image"):
        list(iterate(training([path], 1, {**OFF, "flip": 0.5})[0]))
