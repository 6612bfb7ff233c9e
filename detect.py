"""Finds objects in pictures: draws them, and writes them as COCO JSON.

    python detect.py --model model/* --image photo.jpg more.zip

Writes `output_<name>` for each picture, `detections.json`, and `review.csv`: the
pictures in the order of how much the network would learn from their labels. Pictures
that cannot be read are named and left out; where they are more than `max_unreadable`,
the exit status is 2, though all others are done. Where none can be read, it is 1.
"""

import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import valohai
from absl import logging

from valohai_step import runtime
from valohai_step.inputs import input_folder, input_paths, read_class_names
from valohai_step.outputs import log_metadata, progress_bar, staged_outputs
from valohai_step.parameters import read_parameters
from yolov3_tf2.errors import InputError

PARAMETERS = {
    "size": {
        "default": 0,
        "category": "Detection",
        "min": 0,
        "max": 4096,
        "description": "Side of the network's input in pixels, a multiple of 32; 0: "
        "the one that the model was trained at.",
    },
    "score_threshold": {
        "default": 0.5,
        "category": "Detection",
        "min": 0.0,
        "max": 1.0,
        "description": "Boxes of a lower score are dropped.",
    },
    "iou_threshold": {
        "default": 0.5,
        "category": "Detection",
        "min": 0.0,
        "max": 1.0,
        "description": "Of two boxes of a class that overlap more than this, the "
        "weaker is dropped.",
    },
    "max_boxes": {
        "default": 100,
        "category": "Detection",
        "min": 1,
        "max": 10000,
        "description": "Boxes kept a picture, the best ones.",
    },
    "batch_size": {
        "default": 8,
        "category": "Run",
        "min": 1,
        "max": 1024,
        "description": "Pictures that go through the network at once.",
    },
    "precision": {
        "default": "auto",
        "category": "Run",
        "choices": ["auto", "float16", "bfloat16", "float32"],
        "description": "What the network computes in; auto: float16 on GPUs with "
        "tensor cores, bfloat16 on processors that have it, else float32.",
    },
    "max_unreadable": {
        "default": 0,
        "category": "Run",
        "min": 0,
        "max": 1_000_000_000,
        "description": "Pictures that may be unreadable. All are left out; where they "
        "are more than this, the exit status is 2.",
    },
}
INPUTS = {
    "classes": {
        "default": [],
        "optional": True,
        "description": "Class names, one a line, to check the model's own against.",
    },
    "model": {
        "default": [],
        "optional": False,
        "description": "The files of the folder model/ that the train or weights step "
        "wrote.",
    },
    "image": {
        "default": [],
        "optional": False,
        "description": "Pictures, zips or folders of pictures, or the TFRecord files "
        "that convert-superbai wrote.",
    },
}
valohai.prepare(
    step="detect",
    image="python:3.11-slim",
    default_parameters=PARAMETERS,
    default_inputs=INPUTS,
)

THREADS = min(os.cpu_count(), 8)

# A decoded picture takes four bytes a pixel, and while it is scaled six more. There are
# `IN_NETWORK` batches and one more, which is drawn or put together.
MAX_BATCH_PIXELS = 50_000_000
# Of those decoded ahead of a batch, and of those being saved behind it: eight of 12
# megapixels.
MAX_WAITING_PIXELS = 100_000_000

# Batches at a time: each operation of the network leaves some cores idle at its end.
IN_NETWORK = 2

FIRST_TO_REVIEW = 3  # Pictures that the log names.


def main():
    values = read_parameters(PARAMETERS, INPUTS)
    model_folder = input_folder("model", "model.json")
    image_paths = input_paths("image", folders=True)
    classes = input_paths("classes", optional=True)

    # TensorFlow takes seconds to import: what can be refused is refused before.
    runtime.import_tensorflow()
    from yolov3_tf2.evaluation import detections_file
    from yolov3_tf2.inference import review
    from yolov3_tf2.inference.sources import count_images, walk_images

    detector, info = load_detector(model_folder, classes, values)
    total, others = count_images(image_paths)
    if not total:
        raise InputError(
            f"no pictures in {', '.join(map(str, image_paths))}; expected at least one."
        )
    if others:
        logging.info("left out: %d files in zips and folders, no pictures", others)

    left_out, seconds = [], Stopwatch()
    with staged_outputs() as folder:
        bar = progress_bar(walk_images(image_paths), total=total, unit=" pictures")
        loaded = load(bar, detector, number_waiting(values), left_out)
        loaded = batches(loaded, values["batch_size"])
        with detections_file.DetectionsFile(
            folder / "detections.json", info.class_names, left_out
        ) as found:
            rows = look_through(loaded, detector, info, values, folder, found, seconds)
        if not found.pictures:
            raise InputError(f"none of {total} pictures can be read; see above.")
        ranked = review.rank_rows(rows)
        review.write_csv(folder / "review.csv", ranked)

    logging.info("%d objects found in %d pictures", found.objects, found.pictures)
    if not found.objects:
        logging.warning(
            "none reached the score of %g; lower it with --score_threshold, or train "
            "for more epochs",
            values["score_threshold"],
        )
    first = [f"{row.file_name} ({row.reason})" for row in ranked[:FIRST_TO_REVIEW]]
    logging.info("review.csv: look first at %s", ", ".join(first))
    log_metadata(
        pictures=found.pictures,
        pictures_left_out=len(left_out),
        objects=found.objects,
        images_per_second=found.pictures / (bar.format_dict["elapsed"] or 1),
        network_images_per_second=found.pictures / seconds.total,
    )
    if left_out:
        logging.warning(
            "left out: %d of %d pictures, which cannot be read", len(left_out), total
        )
    return 2 if len(left_out) > values["max_unreadable"] else 0


def load_detector(model_folder, classes, values):
    """Loads the model.

    Args:
        model_folder: its folder.
        classes: list of the class file, or of nothing.
        values: the step's parameters.

    Returns:
        A `detector.Detector`, which finds down to the scores that are to be reviewed,
        and the model's `checkpoint.ModelInfo`.
    """
    from yolov3_tf2.inference import review
    from yolov3_tf2.inference.detector import Detector
    from yolov3_tf2.network import checkpoint
    from yolov3_tf2.training import devices

    precision = devices.choose_precision(values["precision"])
    devices.set_precision(precision)
    model, info = checkpoint.load_model(model_folder, folded=True)
    check_class_names(classes, info.class_names, model_folder)
    logging.info(
        "%s: %d classes, in %s", info.variant.name, len(info.class_names), precision
    )
    size = values["size"] or info.size
    if size != info.size:
        logging.warning(
            "the model was trained at size %d; detecting at %d may find less",
            info.size,
            size,
        )
    detector = Detector(
        model,
        info.variant,
        size,
        score_threshold=min(values["score_threshold"], review.FLOOR),
        iou_threshold=values["iou_threshold"],
        max_boxes=values["max_boxes"],
    )
    return detector, info


def over(score_threshold, detected):
    """The boxes of a higher score: what a detector of that threshold finds.

    Suppression goes from the highest score down, so that what it keeps does not depend
    on the boxes of lower scores, and the most boxes are those of the highest ones.
    """
    # As TensorFlow compares them.
    is_over = detected.scores > np.float32(score_threshold)
    return type(detected)(*(part[is_over] for part in detected))


def look_through(loaded, detector, info, values, folder, found, seconds):
    """Finds objects in pictures, draws them, and notes them.

    Args:
        loaded: iterable of batches, see `batches`.
        detector, info: see `load_detector`.
        values: the step's parameters.
        folder: where the pictures are saved.
        found: a `detections_file.DetectionsFile`.
        seconds: a `Stopwatch` for the network.

    Returns:
        A list of `review.Row`.
    """
    from yolov3_tf2.evaluation import draw
    from yolov3_tf2.inference import review

    rarities = review.class_rarity(info.class_names, info.train_boxes)
    names = draw.output_names()
    reviews, saved = [], Pending()
    with ThreadPoolExecutor(THREADS) as pool:
        for batch, detections in find(loaded, detector, seconds):
            kept = [over(values["score_threshold"], boxes) for boxes in detections]
            reviews += review.rate_images(
                [
                    (source.name, candidates, len(boxes.scores))
                    for (source, _, _), candidates, boxes in zip(
                        batch, detections, kept, strict=True
                    )
                ],
                info.class_names,
                rarities,
            )
            for (source, image, _), detected in zip(batch, kept, strict=True):
                output = names(source.name, image.size)
                found.add(
                    {
                        "file_name": source.name,
                        "source": source.where,
                        "width": image.width,
                        "height": image.height,
                        "output": output,
                    },
                    detected,
                )
                drawn = draw.draw_boxes(
                    image,
                    detected.boxes_px,
                    detected.labels,
                    info.class_names,
                    detected.scores,
                )
                future = pool.submit(drawn.save, folder / output, quality=92)
                saved.add(future, image.width * image.height)
                saved.take(number_waiting(values))
            del batch  # Its pictures, before the next ones are waited for.
        saved.take(0)
    return reviews


def find(loaded, detector, seconds):
    """Yields (batch, list of its `detector.Detections`) of all batches.

    While the caller draws one, and another is put together, threads look at the next
    two.

    Args:
        loaded: iterable of batches, see `batches`.
        detector: a `detector.Detector`.
        seconds: a `Stopwatch` for it.
    """

    def look(batch):
        with seconds:
            return batch, detector([prepared for _, _, prepared in batch])

    with ThreadPoolExecutor(IN_NETWORK) as pool:
        running = deque()
        for batch in loaded:
            running.append(pool.submit(look, batch))
            if len(running) > IN_NETWORK:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def load(sources, detector, number, left_out):
    """Yields (source, RGB picture, what the network sees of it) of what can be read.

    Args:
        sources: iterable of `sources.Source`.
        detector: a `detector.Detector`.
        number: pictures that threads decode before their turn.
        left_out: list that gets a dict for each picture that cannot be read.
    """
    from yolov3_tf2.files.images import load_rgb, open_image

    def decode(source, encoded, error):
        if error is None:
            try:
                image = load_rgb(encoded, source.where)
                return source, image, detector.prepare(np.asarray(image)), None
            except InputError as caught:
                error = caught
        return source, None, None, error

    def decoded():
        waiting = Pending()
        with ThreadPoolExecutor(THREADS) as pool:
            # Read here and not there: a zip is open until its last source is taken.
            for source in sources:
                encoded, pixels, error = None, 0, None
                try:
                    encoded = source.read()
                    header = open_image(encoded, source.where)
                    pixels = header.width * header.height
                except (InputError, OSError) as caught:
                    error = caught
                waiting.add(pool.submit(decode, source, encoded, error), pixels)
                yield from waiting.take(number)
            yield from waiting.take(0)

    for source, image, prepared, error in decoded():
        if error is None:
            yield source, image, prepared
        else:
            logging.warning("left out: %s", error)
            left_out.append({"file_name": source.name, "reason": str(error)})


def number_waiting(values):
    """How many pictures are decoded ahead, or saved behind: all of a batch at least."""
    return max(values["batch_size"], THREADS)


class Pending:
    """What threads do for pictures, in order, and how many pixels it holds."""

    def __init__(self):
        self._futures, self._pixels = deque(), 0

    def add(self, future, pixels):
        self._futures.append((future, pixels))
        self._pixels += pixels

    def take(self, number):
        """Waits until `number` are left, or fewer of very large pictures.

        Returns:
            A list of the results of the first ones; raises what one has raised.
        """
        results = []
        while len(self._futures) > number or self._pixels > MAX_WAITING_PIXELS:
            future, pixels = self._futures.popleft()
            results.append(future.result())
            self._pixels -= pixels
        return results


class Stopwatch:
    """Adds up the seconds in which any thread is in its `with` blocks, as `total`."""

    def __init__(self):
        self.total = 0.0
        self._threads, self._lock = 0, threading.Lock()

    def __enter__(self):
        with self._lock:
            if not self._threads:
                self._start = time.perf_counter()
            self._threads += 1

    def __exit__(self, *error):
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self.total += time.perf_counter() - self._start


def check_class_names(paths, class_names, model_folder):
    """Raises an `InputError` where a class file names other classes than the model."""
    if not paths:
        return
    names = read_class_names(paths[0])
    if names != class_names:
        raise InputError(
            f"{paths[0]} names {len(names)} classes ({', '.join(names[:5])}...), but "
            f"{model_folder / 'model.json'} {len(class_names)} "
            f"({', '.join(class_names[:5])}...); is the model of another data set? "
            "Leave the input 'classes' out to use the model's own names."
        )


def batches(loaded, size):
    """Yields lists of at most `size` pictures, fewer of very large ones."""
    batch, pixels = [], 0
    for picture in loaded:
        batch.append(picture)
        _, image, _ = picture
        pixels += image.width * image.height
        if len(batch) == size or pixels > MAX_BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


if __name__ == "__main__":
    runtime.run_step(main)
