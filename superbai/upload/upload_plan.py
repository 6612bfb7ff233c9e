"""What an upload sends to the Superb AI Suite.

`make_items` says which boxes and tags the label of each image gets; `label_merge` says
which objects of an existing label stay beside them.
"""

import csv
import re
from typing import NamedTuple

from superbai.upload.box_id import MAX_EQUAL, make_id
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import annotations
from yolov3_tf2.names import normalise_name, normalise_path

REVIEW_TAG = "review"
# Characters of a name that no request can hold.
_SURROGATE = re.compile("[\ud800-\udfff]")


class Item(NamedTuple):
    """An image, and what its label in the Suite gets.

    Attributes:
        dataset, key: names of the image in the Suite.
        size: (width, height) that its boxes are for; None if unknown.
        boxes: dict from object id to class name and (x, y, width, height) in pixels.
        tags: set of strings.
        problem: why nothing can be sent; an empty string if it can.
    """

    dataset: str
    key: str
    size: tuple[int, int] | None
    boxes: dict
    tags: set
    problem: str = ""

    @property
    def name(self):
        """The image's name in messages."""
        return f"{self.dataset}/{self.key}" if self.dataset else self.key


def read_review(path, number):
    """Returns the names of the first images of a `review.csv`, a set.

    Raises:
        InputError: the file is not a CSV file in UTF-8 with a column `file_name`, or a
            row has another number of values than the first.
    """
    try:
        # Excel writes a byte order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: expected a CSV file in UTF-8, as detect.py writes it, but it "
            f"cannot be read ({error}); was it cut off, or saved in another encoding?"
        ) from error
    columns = rows[0][1] if rows else []
    if "file_name" not in columns:
        raise InputError(
            f"{path}: expected a column file_name, got "
            f"{', '.join(columns) or 'an empty file'}; is it the review.csv of "
            "detect.py, with commas between its values?"
        )
    for line, row in rows:
        if len(row) != len(columns):
            raise InputError(
                f"{path}: line {line}: expected {len(columns)} values, got {len(row)}; "
                "was it cut off, or edited by hand?"
            )
    place = columns.index("file_name")
    return {normalise_path(row[place]) for _, row in rows[1 : number + 1]}


def identify_all(annotated_images, dataset):
    """Returns the (dataset, key) of each image in the Suite, and what is unknown.

    Args:
        annotated_images: list of `annotations.AnnotatedImage`.
        dataset: dataset of all images; if empty, the first folder of each name.

    Returns:
        A list of pairs; and a dict from the pairs that cannot be sent to the reason:
        the dataset of the image is unknown and empty here.

    Raises:
        InputError: this is so for all images, or two images have the same names.
    """
    by_identity, problems = {}, {}
    for image in annotated_images:
        try:
            identity = identify(image, dataset)
        except InputError as error:
            identity = ("", image.name)
            problems[identity] = str(error)
        other = by_identity.setdefault(identity, image)
        if other is not image:
            raise InputError(
                f"{image.where}: duplicate image '{identity[1]}' of dataset "
                f"'{identity[0]}', which {other.where} has too; remove one."
            )
    if problems and len(problems) == len(by_identity):
        raise InputError(next(iter(problems.values())))
    return list(by_identity), problems


def identify(image, dataset):
    """Returns the dataset and the key of an image in the Suite.

    Example:
        >>> from yolov3_tf2.files.annotations import AnnotatedImage
        >>> identify(AnnotatedImage("street/left/1.jpg", None, (), ""), "")
        ('street', 'left/1.jpg')
        >>> identify(AnnotatedImage("left/1.jpg", None, (), ""), "street")
        ('street', 'left/1.jpg')
    """
    if _SURROGATE.search(image.name):
        raise InputError(
            f"{image.where}: the name {ascii(image.name)} has half of a character, as "
            "a name that was cut; rename the image."
        )
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
    problems,
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
        problems: dict from those that cannot be sent to the reason; `identify_all`
            returns both.
        find_size: function from (dataset, key) to (width, height) or None, for images
            whose size the annotations do not say.
        score_threshold: boxes with a lower score are skipped.
        tag: tag of all images, or an empty string.
        review_names: set of the names of images that get `REVIEW_TAG`.
        skip_counts: `Counter` of what is skipped or corrected, by reason; updated.
    """
    items = []
    for image, identity in zip(annotated_images, identities, strict=True):
        if identity in problems:
            items.append(Item(*identity, None, {}, set(), problems[identity]))
            continue
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


def unnamed_items(bad_names):
    """Returns an `Item` with a problem for each image whose name cannot be used.

    Args:
        bad_names: dict from where the image is described to the reason.
    """
    return [
        Item("", where, None, {}, set(), reason) for where, reason in bad_names.items()
    ]


def _boxes_by_id(boxes, identity, score_threshold, skip_counts):
    """Returns the boxes of one image as `Item.boxes`."""
    by_id = {}
    for box in boxes:
        if box.score is not None and box.score < score_threshold:
            skip_counts["boxes below the score threshold"] += 1
            continue
        left, top, right, bottom = box.xyxy
        sent = normalise_name(box.class_name), (left, top, right - left, bottom - top)
        ids = (make_id(*identity, *sent, number) for number in range(MAX_EQUAL))
        # The first that is free or of the very same box.
        box_id = next((i for i in ids if by_id.get(i, sent) == sent), None)
        if box_id is None or box_id in by_id:
            skip_counts["duplicate boxes"] += 1
        else:
            by_id[box_id] = sent
    return by_id
