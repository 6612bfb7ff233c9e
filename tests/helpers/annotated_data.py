"""Data sets with COCO, YOLO or Pascal VOC labels for tests.

Each function returns the entries of an archive as a dict from name to content, the
labels and the images, for `suite_export.write_zip`.
"""

import json

from suite_export import encoded_image, write_zip

from superbai import formats

NORTH = encoded_image((90, 120, 150), size=(640, 480))
SOUTH = encoded_image((10, 220, 50), size=(320, 240))


def coco_json(images, boxes=(), class_names=("valve", "gauge"), ids=None, **changes):
    """A COCO file.

    Args:
        images: list of (file_name, width, height); their ids are 7, 8, ...
        boxes: list of (number of the image, number of the class, x, y, width, height).
        ids: those of the classes; 3, 11, 19, ... if None.
    """
    ids = ids or [3 + 8 * number for number in range(len(class_names))]
    return {
        "images": [
            {"id": 7 + n, "file_name": name, "width": width, "height": height}
            for n, (name, width, height) in enumerate(images)
        ],
        "categories": [
            {"id": each, "name": name}
            for each, name in zip(ids, class_names, strict=True)
        ],
        "annotations": [
            {
                "id": 1 + n,
                "image_id": 7 + image,
                "category_id": ids[label],
                "bbox": bbox,
                "iscrowd": 0,
                "segmentation": [],
            }
            for n, (image, label, *bbox) in enumerate(boxes)
        ],
        **changes,
    }


def as_json(value):
    return json.dumps(value, ensure_ascii=False).encode()


def yolo_lines(boxes, size):
    """The label file of boxes (label, xyxy in pixels)."""
    (width, height), lines = size, []
    for label, (left, top, right, bottom) in boxes:
        x, y = (left + right) / 2 / width, (top + bottom) / 2 / height
        place = (x, y, (right - left) / width, (bottom - top) / height)
        lines.append(" ".join(map(repr, (label, *place))))
    return "".join(f"{line}\n" for line in lines).encode()


def voc_xml(filename, size, objects):
    """The XML of objects (class name, xyxy as it stands there, difficult)."""
    parts = [
        f"<object><name>{name}</name><difficult>{int(difficult)}</difficult><bndbox>"
        + "".join(
            f"<{edge}>{value!r}</{edge}>"
            for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), xyxy, strict=True)
        )
        + "</bndbox></object>"
        for name, xyxy, difficult in objects
    ]
    width, height = size
    return (
        f"<annotation><filename>{filename}</filename><size><width>{width}</width>"
        f"<height>{height}</height></size>{''.join(parts)}</annotation>"
    ).encode()


def open_data(folder, entries, images=None, **options):
    """Writes an archive of all, or two if `images` are given apart, and opens it."""
    given = [write_zip(folder / "images.zip", images)] if images else []
    return formats.open_export(
        given, [write_zip(folder / "data.zip", entries)], **options
    )


def read_data(folder, entries, images=None, **options):
    """Returns the records of a data set by their `source_id`, and the open object."""
    with open_data(folder, entries, images, **options) as data:
        return {item.source_id: data.read(item) for item in data.items}, data


def as_coco(records, splits, class_names):
    """Roboflow's layout: a folder with a JSON for each split."""
    entries = {}
    for split in dict.fromkeys(splits):
        here = [r for r, s in zip(records, splits, strict=True) if s == split]
        images = [(base(r), r.width, r.height) for r in here]
        boxes = [
            (n, label, x, y, right - x, bottom - y)
            for n, r in enumerate(here)
            for label, (x, y, right, bottom) in zip(r.labels, r.boxes_px, strict=True)
        ]
        file = coco_json(images, boxes, class_names)
        entries[f"{split}/_annotations.coco.json"] = as_json(file)
        entries |= {f"{split}/{base(r)}": r.encoded for r in here}
    return entries


def as_yolo(records, splits, class_names):
    """Ultralytics' layout: images and labels, each with the folders of the splits."""
    places = {split: f"images/{split}" for split in splits}
    lines = [f"{split}: {place}" for split, place in places.items()]
    names = [f"  {n}: {name}" for n, name in enumerate(class_names)]
    yaml = "\n".join(["path: ../datasets/made", *lines, "names:", *names, ""])
    entries = {"data.yaml": yaml.encode()}
    for record, split in zip(records, splits, strict=True):
        stem = base(record).rpartition(".")[0]
        boxes = zip(record.labels, record.boxes_px, strict=True)
        entries[f"images/{split}/{base(record)}"] = record.encoded
        entries[f"labels/{split}/{stem}.txt"] = yolo_lines(
            boxes, (record.width, record.height)
        )
    return entries


def as_voc(records, splits, class_names):
    """The layout of VOCdevkit, with its lists of the splits."""
    entries, root = {"labelmap.txt": "\n".join(class_names).encode()}, "VOC2012"
    lists = {split: [] for split in splits}
    for record, split in zip(records, splits, strict=True):
        stem = base(record).rpartition(".")[0]
        lists[split].append(stem)
        objects = [
            (class_names[label], xyxy, False)
            for label, xyxy in zip(record.labels, record.boxes_px, strict=True)
        ]
        entries[f"{root}/JPEGImages/{base(record)}"] = record.encoded
        entries[f"{root}/Annotations/{stem}.xml"] = voc_xml(
            base(record), (record.width, record.height), objects
        )
    for split, stems in lists.items():
        entries[f"{root}/ImageSets/Main/{split}.txt"] = "\n".join(stems).encode()
    return entries


def base(record):
    return record.source_id.rpartition("/")[2]
