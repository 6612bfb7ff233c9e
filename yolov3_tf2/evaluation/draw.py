"""Draws boxes, class names and scores on images of any size.

Class names may be in any script.
"""

import colorsys
import functools
import importlib.util
import io
from collections import Counter
from pathlib import Path, PurePosixPath

from PIL import ImageDraw, ImageFont

from yolov3_tf2.errors import naming

# Noto Sans CJK: Latin, Korean, Japanese and Chinese. Index 1 is its Korean face.
_FONT_PACKAGE, _FONT_FILE, _FONT_INDEX = (
    "manimgx_fonts_cjk",
    "NotoSansCJK-VF.otf.ttc",
    1,
)

JPEG_MAX_SIDE = 65_500


def class_colour(label):
    """Returns the colour of a class, (red, green, blue) from 0 to 255.

    The hues of consecutive classes are a golden angle apart, so that they differ
    however many classes there are.
    """
    hue = (0.02 + label * 0.61803398875) % 1.0
    value = (1.0, 0.85, 0.7)[label // 8 % 3]
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, value))


def draw_boxes(image, boxes_px, labels, class_names, scores=None):
    """Returns a copy of an image with boxes drawn on it.

    Lines and letters grow with the image. A name is written above its box, or inside it
    if there is no room above. Boxes with higher scores are drawn over the others.

    Args:
        image: a `PIL.Image.Image`, RGB.
        boxes_px: `[boxes, 4]` xyxy in pixels of `image`.
        labels: `[boxes]` class indices.
        class_names: list of strings.
        scores: `[boxes]` in [0, 1], written after the names; None to omit them.
    """
    image = image.copy()
    canvas = ImageDraw.Draw(image)
    shorter = min(image.size)
    line = max(1, round(shorter / 200))
    font = _font(max(11, round(shorter / 32)))
    order = range(len(boxes_px))
    if scores is not None:
        order = sorted(order, key=lambda i: scores[i])
    for i in order:
        label = int(labels[i])
        text = class_names[label]
        if scores is not None:
            text += f" {scores[i]:.2f}"
        _draw_box(canvas, image.size, boxes_px[i], class_colour(label), line)
        _draw_text(canvas, image.size, boxes_px[i], text, class_colour(label), font)
    return image


def _draw_box(canvas, size, box, colour, line):
    left, top, right, bottom = box
    right, bottom = min(right, size[0] - 1), min(bottom, size[1] - 1)
    canvas.rectangle(
        (left, top, max(left, right), max(top, bottom)), outline=colour, width=line
    )


def _draw_text(canvas, size, box, text, colour, font):
    ascent, descent = font.getmetrics()
    # CJK fonts leave about a third of the line empty above Latin letters.
    height = round((ascent + descent) * 0.8)
    width = canvas.textlength(text, font=font) + height // 3
    left = max(0, min(box[0], size[0] - width))
    top = box[1] - height
    if top < 0:
        top = max(0, min(box[1], size[1] - height))
    canvas.rectangle((left, top, left + width, top + height), fill=colour)
    red, green, blue = colour
    # Black or white letters, depending on the perceived brightness (ITU-R BT.601).
    is_bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    canvas.text(
        (left + height // 6, top + height / 2),
        text,
        fill="black" if is_bright else "white",
        font=font,
        anchor="lm",
    )


def font_path():
    """Returns the path of the font file, as a string."""
    # Without importing the package: only its file is needed.
    (folder,) = importlib.util.find_spec(_FONT_PACKAGE).submodule_search_locations
    return str(Path(folder) / _FONT_FILE)


@functools.lru_cache(maxsize=64)
def _font(pixels):
    font = ImageFont.truetype(font_path(), pixels, index=_FONT_INDEX)
    font.set_variation_by_name("Bold")
    return font


def output_names():
    """Returns a function that names the output of an image, each name only once.

    Its arguments are the name of the image and its (width, height); it returns
    `output_<name>.png` for PNG files and images too large for JPEG, and else
    `output_<name>.jpg`.
    """
    used = set()
    numbers = Counter()

    def name_output(name, size):
        path = PurePosixPath(name)
        is_png = path.suffix.lower() == ".png" or max(size) > JPEG_MAX_SIDE
        suffix = ".png" if is_png else ".jpg"
        # File systems allow 255 bytes; a Korean letter takes three.
        stem = path.stem.encode("utf-8")[:220].decode("utf-8", "ignore")
        output = f"output_{stem}{suffix}"
        first = output.lower()
        while output.lower() in used:
            numbers[first] += 1
            output = f"output_{stem}-{numbers[first] + 1}{suffix}"
        used.add(output.lower())
        return output

    return name_output


def save_image(image, path, quality=92):
    """Saves an image as PNG or, where that is not the file's extension, as JPEG.

    Raises:
        OSError: it cannot be written. Pillow writes to some files by itself and does
            not notice where only a part of its last bytes fits on the disk.
    """
    encoded = io.BytesIO()
    image.save(encoded, "PNG" if path.suffix == ".png" else "JPEG", quality=quality)
    with naming(path):
        path.write_bytes(encoded.getvalue())
