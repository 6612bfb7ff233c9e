"""What an upload sends to the Superb AI Suite.

`make_items` says which boxes and tags the label of each image gets, and
`merge_objects` which objects of an existing label stay beside them.

The id of each uploaded box encodes its image, class and position. A later run thereby
recognises its own boxes, and sees which of them people have edited: the position no
longer matches the id, or the box has properties, which an upload never sets.
"""

import csv
import hashlib
import json
import unicodedata
import uuid
from typing import NamedTuple

from superbai.stored_label import read_box
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import annotations
from yolov3_tf2.names import normalise_name, normalise_path

REVIEW_TAG = "review"
# The first characters of the ids of all uploaded boxes.
_ID_PREFIX = "05be7ba1"


class Item(NamedTuple):
    """An image, and what its label in the Suite gets.

    Attributes:
        dataset, key: names of the image in the Suite.
        size: (width, height) that its boxes are for; None if unknown.
        boxes: dict from object id to class name and (x, y, width, height) in pixels.
        tags: set of strings.
    """

    dataset: str
    key: str
    size: tuple[int, int] | None
    boxes: dict
    tags: set

    @property
    def name(self):
        """The image's name in messages."""
        return f"{self.dataset}/{self.key}"


def read_review(path, number):
    """Returns the names of the first images of a `review.csv`, a set.

    Raises:
        InputError: the file is not a CSV file in UTF-8 with a column `file_name`.
    """
    try:
        # Excel writes a byte order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: expected a CSV file in UTF-8, as detect.py writes it, but it "
            f"cannot be read ({error}); was it saved in another encoding?"
        ) from error
    if rows and "file_name" not in rows[0]:
        raise InputError(
            f"{path}: expected a column file_name, got {', '.join(rows[0])}; is it the "
            "review.csv of detect.py?"
        )
    return {normalise_path(row["file_name"]) for row in rows[:number]}


def identify_all(annotated_images, dataset):
    """Returns the (dataset, key) of each image in the Suite, a list.

    Args:
        annotated_images: list of `annotations.AnnotatedImage`.
        dataset: dataset of all images; if empty, the first folder of each name.

    Raises:
        InputError: an image's dataset is unknown, or two images have the same names.
    """
    by_identity = {}
    for image in annotated_images:
        identity = identify(image, dataset)
        other = by_identity.setdefault(identity, image)
        if other is not image:
            raise InputError(
                f"{image.where}: duplicate image '{identity[1]}' of dataset "
                f"'{identity[0]}', which {other.where} has too; remove one."
            )
    return list(by_identity)


def identify(image, dataset):
    """Returns the dataset and the key of an image in the Suite.

    Example:
        >>> from yolov3_tf2.files.annotations import AnnotatedImage
        >>> identify(AnnotatedImage("street/left/1.jpg", None, (), ""), "")
        ('street', 'left/1.jpg')
        >>> identify(AnnotatedImage("left/1.jpg", None, (), ""), "street")
        ('street', 'left/1.jpg')
    """
    if dataset:
        # The names of images are in NFC; a dataset typed on a Mac may not be.
        folder = normalise_path(dataset)
        return dataset, image.name.removeprefix(f"{folder}/")
    folder, slash, key = image.name.partition("/")
    if not slash:
        raise InputError(
            f"{image.where}: the dataset of image '{image.name}' is unknown, as its "
            "name has no folder; set --dataset."
        )
    return folder, key


def make_items(
    annotated_images,
    identities,
    *,
    find_size,
    score_threshold,
    tag,
    review_names,
    skip_counts,
):
    """Returns what is to be sent, a list of `Item`.

    Args:
        annotated_images: list of `annotations.AnnotatedImage`.
        identities: the (dataset, key) of each.
        find_size: function from (dataset, key) to (width, height) or None, for images
            whose size the annotations do not say.
        score_threshold: boxes with a lower score are skipped.
        tag: tag of all images, or an empty string.
        review_names: set of the names of images that get `REVIEW_TAG`.
        skip_counts: `Counter` of what is skipped or corrected, by reason; updated.
    """
    items = []
    for image, identity in zip(annotated_images, identities, strict=True):
        if image.size is None:
            image = annotations.clip_to_image(image, find_size(identity), skip_counts)
        boxes = _boxes_by_id(image.boxes, identity, score_threshold, skip_counts)
        tags = {tag} - {""}
        if image.name in review_names:
            tags.add(REVIEW_TAG)
        items.append(Item(*identity, image.size, boxes, tags))
    unknown = review_names - {image.name for image in annotated_images}
    if unknown:
        skip_counts["images of review.csv that are not in the annotations"] += len(
            unknown
        )
    return items


def _boxes_by_id(boxes, identity, score_threshold, skip_counts):
    """Returns the boxes of one image as `Item.boxes`."""
    by_id = {}
    for box in boxes:
        if box.score is not None and box.score < score_threshold:
            skip_counts["boxes below the score threshold"] += 1
            continue
        left, top, right, bottom = box.xyxy
        xywh = (left, top, right - left, bottom - top)
        class_name = normalise_name(box.class_name)
        box_id = object_id(*identity, class_name, xywh)
        if box_id in by_id:
            skip_counts["duplicate boxes"] += 1
        by_id[box_id] = (class_name, xywh)
    return by_id


def object_id(dataset, key, class_name, xywh):
    """Returns the id of an uploaded box: a UUID made of its image, class and position.

    The names may be in any Unicode form.
    """
    names = [unicodedata.normalize("NFC", each) for each in (dataset, key, class_name)]
    text = json.dumps([*names, *map(float, xywh)], ensure_ascii=False)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    prefixed = uuid.UUID(_ID_PREFIX + digest[:24])
    return str(uuid.UUID(bytes=prefixed.bytes, version=5))


def is_ours(stored, dataset, key):
    """Tells whether an object of the Suite is an uploaded box that nobody has edited.

    Args:
        stored: the object as the Suite has stored it, a dict.
        dataset, key: of its image.
    """
    box = read_box(stored)
    if box is None or not str(stored["id"]).startswith(_ID_PREFIX):
        return False
    if stored.get("properties"):
        return False
    return stored["id"] == object_id(dataset, key, *box)


def merge_objects(item, stored_objects, replace):
    """Decides which objects of a label stay, and which boxes are added.

    Args:
        item: an `Item`.
        stored_objects: list of the label's objects as the Suite has stored them.
        replace: `ours`, boxes of earlier uploads that nobody has edited go; `all`,
            every object goes; `none`, all stay, and only an empty label gets boxes.

    Returns:
        A list of the objects that stay, and a dict like `Item.boxes` of those to add.
    """
    if replace == "none" and stored_objects:
        return stored_objects, {}
    kept_objects, new_boxes = [], dict(item.boxes)
    for stored in stored_objects:
        is_unedited = is_ours(stored, item.dataset, item.key)
        if is_unedited and stored["id"] in new_boxes:
            # Stays in its place, so that a label that is right is not written again.
            kept_objects.append(stored)
            del new_boxes[stored["id"]]
        elif replace == "ours" and not is_unedited:
            kept_objects.append(stored)
            # A box that somebody has corrected is not sent again.
            new_boxes.pop(stored["id"], None)
    return kept_objects, new_boxes
