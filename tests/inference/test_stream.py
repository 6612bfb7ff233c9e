"""The stream: limits of what is in memory, order, unreadable images, time."""

import threading

import numpy as np
import pytest
from PIL import Image

from yolov3_tf2.files.images import load_rgb
from yolov3_tf2.inference import stream
from yolov3_tf2.inference.sources import Source, walk_images


class CountingDetector:
    """Stands for a `Detector`; its detections are the mean colours of the images."""

    def __init__(self):
        self.batch_sizes = []

    def prepare(self, array):
        return array.mean(axis=(0, 1))

    def __call__(self, prepared):
        self.batch_sizes.append(len(prepared))
        return prepared


def detect(sources, batch_size=3):
    """Returns what `detect_images` yields, the unreadable images, and the detector."""
    detector, unreadable = CountingDetector(), []
    batches = stream.detect_images(
        sources,
        detector,
        batch_size=batch_size,
        unreadable=unreadable,
        stopwatch=stream.Stopwatch(),
    )
    return list(batches), unreadable, detector


@pytest.fixture
def paths(tmp_path):
    """Ten images, each of another grey."""
    for number in range(10):
        image = Image.new("RGB", (20 + number, 10), (number,) * 3)
        image.save(tmp_path / f"{number}.png")
    return sorted(tmp_path.iterdir())


def test_batches_come_in_order_with_their_detections(paths):
    batches, unreadable, detector = detect(walk_images(paths))
    assert [len(batch) for batch, _ in batches] == [3, 3, 3, 1]
    assert sorted(detector.batch_sizes) == [1, 3, 3, 3] and not unreadable
    loaded = [image for batch, _ in batches for image in batch]
    assert [image.source.name for image in loaded] == [path.name for path in paths]
    assert [image.rgb.width for image in loaded] == list(range(20, 30))
    greys = [grey.tolist() for _, detections in batches for grey in detections]
    assert greys == [[number] * 3 for number in range(10)]


def test_unreadable_images_are_skipped_in_order(paths):
    paths[2].write_bytes(b"no image")
    # The header is whole: decoding finds the damage.
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), "uint8")
    Image.fromarray(noise).save(paths[7])
    paths[7].write_bytes(paths[7].read_bytes()[:5000])

    def fail():
        raise OSError("5.png: no such file")

    sources = list(walk_images(paths))
    sources[5] = sources[5]._replace(read=fail)
    batches, unreadable, _ = detect(sources)
    names = [loaded.source.name for batch, _ in batches for loaded in batch]
    assert names == [f"{number}.png" for number in (0, 1, 3, 4, 6, 8, 9)]
    assert [each["file_name"] for each in unreadable] == ["2.png", "5.png", "7.png"]
    assert all(each["file_name"] in each["reason"] for each in unreadable)


def test_batches_of_large_images_are_small(paths, monkeypatch):
    monkeypatch.setattr(stream, "MAX_BATCH_PIXELS", 450)
    # 200, 210 and 220 pixels are together over 450.
    batches, _, _ = detect(walk_images(paths), batch_size=8)
    assert [len(batch) for batch, _ in batches] == [3, 2, 2, 2, 1]


def test_few_images_are_read_ahead(paths):
    taken = []

    def sources():
        for number in range(1000):
            taken.append(number)
            yield Source(f"{number}", f"{number}", paths[0].read_bytes)

    batches = stream.detect_images(
        sources(),
        CountingDetector(),
        batch_size=4,
        unreadable=[],
        stopwatch=stream.Stopwatch(),
    )
    next(batches)
    # The batches in the network, one more, and what is decoded ahead.
    most = 4 * (stream.BATCHES_IN_NETWORK + 1) + max(4, stream.THREADS) + 1
    assert len(taken) <= most
    batches.close()


def test_large_images_are_few_in_memory(monkeypatch):
    monkeypatch.setattr(stream, "MAX_WAITING_PIXELS", 100)
    taken, waiting = [], []
    with stream.BoundedPool(5, threads=1) as pool:
        for number, pixels in enumerate([10] * 7 + [90, 90, 200, 10]):
            taken += pool.submit(int, number, pixels=pixels)
            waiting.append(number + 1 - len(taken))
        assert waiting == [1, 2, 3, 4, 5, 5, 5, 2, 1, 0, 1]
        assert taken == list(range(10)) and list(pool.finish()) == [10]


def test_a_pool_allows_a_task_for_each_thread():
    both = threading.Barrier(2, timeout=30)
    with stream.BoundedPool(1, threads=2) as pool:
        assert pool.submit(both.wait) == []
        assert pool.submit(both.wait) == []


def test_a_pool_raises_what_a_task_has_raised():
    def fail():
        raise OSError("no room")

    pool = stream.BoundedPool(1, threads=1)
    pool.submit(fail)
    with pytest.raises(OSError, match="no room"):
        pool.submit(int)
    with (
        pytest.raises(OSError, match="no room"),
        stream.BoundedPool(5, threads=1) as pool,
    ):
        pool.submit(fail)


def test_the_stopwatch_counts_threads_together_once(monkeypatch):
    times = iter((1, 4, 10, 11))
    monkeypatch.setattr(stream.time, "perf_counter", lambda: next(times))
    stopwatch = stream.Stopwatch()
    with stopwatch, stopwatch:
        assert stopwatch.total == 0
    assert stopwatch.total == 3
    with stopwatch:
        pass
    assert stopwatch.total == 4


def test_what_the_network_sees_is_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # Shown turned by a quarter: 10 wide, 20 high.
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (20, 10), (200, 60, 60)).save(path, exif=exif)
    (((loaded,), _),), _, _ = detect(walk_images([path]))
    assert loaded.rgb.size == (10, 20) and loaded.num_pixels == 200
    expected = np.asarray(load_rgb(path.read_bytes(), path)).mean(axis=(0, 1))
    np.testing.assert_array_equal(loaded.network_input, expected)
