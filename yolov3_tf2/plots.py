"""Pictures about data: mosaics of labelled pictures."""

import math

from PIL import Image

from yolov3_tf2 import draw, pictures

_GREY = (128, 128, 128)


def records_mosaic(records, class_names, tile=320):
    """Draws labelled pictures side by side.

    Args:
        records: list of `records.Record`, at least one.
        class_names: list of strings.
        tile: side of the square that each picture is fitted into, pixels.

    Returns:
        A `PIL.Image.Image`, RGB.
    """
    columns = math.ceil(math.sqrt(len(records)))
    rows = math.ceil(len(records) / columns)
    mosaic = Image.new("RGB", (columns * tile, rows * tile), _GREY)
    for number, record in enumerate(records):
        image = pictures.load_rgb(record.encoded, record.source_id)
        # Scaled before the boxes are drawn, so that lines and names stay legible.
        scale = tile / max(image.size)
        size = [max(1, round(side * scale)) for side in image.size]
        boxes = [[value * scale for value in box] for box in record.boxes_px]
        image = draw.draw_boxes(image.resize(size), boxes, record.labels, class_names)
        left = number % columns * tile + (tile - size[0]) // 2
        top = number // columns * tile + (tile - size[1]) // 2
        mosaic.paste(image, (left, top))
    return mosaic
