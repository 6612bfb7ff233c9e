"""`detections.json`: what was found as COCO, written picture by picture."""

import json
import shutil
import tempfile

from yolov3_tf2.evaluation import coco


class DetectionsFile:
    """The file while it is written, which takes no memory; a context manager.

    Attributes:
        pictures: number of pictures so far.
        objects: number of annotations so far.
    """

    def __init__(self, path, class_names, left_out):
        """Opens the file.

        Args:
            path: a `pathlib.Path`.
            class_names: list of strings.
            left_out: list of what `info` says of pictures that could not be read, as
                it is when all others have been added.
        """
        self.pictures, self.objects = 0, 0
        self._class_names, self._left_out = class_names, left_out
        # Behind the pictures in the file, and there when they are not all known.
        self._annotations = tempfile.TemporaryFile(  # noqa: SIM115
            "w+", encoding="utf-8", dir=path.parent
        )
        self._file = path.open("w", encoding="utf-8")

    def __enter__(self):
        self._file.write('{"images": [')
        return self

    def __exit__(self, kind, *error):
        with self._file, self._annotations:
            if kind is None:
                self._finish()

    def add(self, image, detected):
        """Adds a picture.

        Args:
            image: a dict of COCO's, without its id.
            detected: its `detector.Detections`.
        """
        self.pictures += 1
        _append(self._file, self.pictures, image)
        for annotation in coco.coco_annotations(
            self.pictures, detected.boxes_px, detected.labels, detected.scores
        ):
            self.objects += 1
            _append(self._annotations, self.objects, annotation)

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


def _append(file, number, value):
    """Writes one more element of a JSON array, with its id; `number` is from 1."""
    text = json.dumps({"id": number, **value}, ensure_ascii=False)
    file.write(f"\n{text}" if number == 1 else f",\n{text}")
