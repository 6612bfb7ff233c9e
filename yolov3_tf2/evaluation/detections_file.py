"""Writes `detections.json`, in COCO format, image by image."""

import json
import shutil
import tempfile

from yolov3_tf2.errors import naming
from yolov3_tf2.evaluation import coco


class DetectionsFile:
    """The file while it is written, a context manager.

    It does not keep what is added in memory.

    Attributes:
        num_images: number of images so far.
        num_objects: number of annotations so far.
        num_full: number of images so far with `Detections.is_full`.
    """

    def __init__(self, path, class_names, left_out):
        """Opens the file.

        Args:
            path: a `pathlib.Path`.
            class_names: list of strings.
            left_out: list of dicts for the images that could not be read. It is
                written at the end, so it may grow until then.
        """
        self.num_images, self.num_objects, self.num_full = 0, 0, 0
        self._class_names, self._left_out = class_names, left_out
        self._path = path
        # Annotations follow the images in the file, but arrive together with them: they
        # wait in a temporary file.
        self._annotations = tempfile.TemporaryFile(  # noqa: SIM115
            "w+", encoding="utf-8", dir=path.parent
        )
        self._file = path.open("w", encoding="utf-8")

    def __enter__(self):
        self._file.write('{"images": [')
        return self

    def __exit__(self, kind, *error):
        with naming(self._path), self._file, self._annotations:
            if kind is None:
                self._finish()

    def add(self, image, detections):
        """Adds an image.

        Args:
            image: dict, a COCO image without id.
            detections: its `detector.Detections`.
        """
        self.num_images += 1
        self.num_full += detections.is_full
        annotations = coco.coco_annotations(
            self.num_images, detections.boxes_px, detections.labels, detections.scores
        )
        with naming(self._path):
            _append_element(self._file, self.num_images, image)
            for annotation in annotations:
                self.num_objects += 1
                _append_element(self._annotations, self.num_objects, annotation)

    def _finish(self):
        self._file.write('],\n"annotations": [')
        self._annotations.seek(0)
        shutil.copyfileobj(self._annotations, self._file)
        rest = {
            "categories": coco.categories(self._class_names),
            "info": {"left_out": self._left_out},
        }
        text = json.dumps(rest, ensure_ascii=False).removeprefix("{")
        self._file.write(f"],\n{text}\n")


def _append_element(file, number, value):
    """Writes the next element of a JSON array, a dict with its number from 1 as id."""
    text = json.dumps({"id": number, **value}, ensure_ascii=False)
    file.write(f"\n{text}" if number == 1 else f",\n{text}")
