"""Reads Pascal VOC annotations: one XML file for each image.

Every number and name is checked. No entity of the XML is ever expanded.
"""

from contextlib import suppress

from lxml import etree

from yolov3_tf2.errors import InputError
from yolov3_tf2.files import json_values
from yolov3_tf2.files.annotated_image import (
    AnnotatedImage,
    Box,
    fit_box,
    image_name,
    image_size,
)
from yolov3_tf2.files.json_values import expect

# Objects that the creators of a data set do not ask a detector to find.
DIFFICULT = "objects marked difficult"


def read_voc(
    content, where, first_pixel, report, *, fit=fit_box, skip_difficult=False, name=""
):
    """Returns an `AnnotatedImage`.

    Args:
        content: the bytes of the file.
        where: what to call the file in an error.
        first_pixel: number of the first column and row, see `read_annotations`.
        report: Counter of what was changed or left out, which is added to.
        fit: what makes a box valid, with the arguments and the result of `fit_box`.
        skip_difficult: leave out objects that are marked `difficult`.
        name: that of the image where the file has no `filename`; empty: that is an
            error.

    Raises:
        InputError: the file is damaged or not a VOC annotation.
    """
    root = _parse_xml(content, where)
    expect(root.tag == "annotation", "a Pascal VOC <annotation>", root.tag, where)
    sides = (root.findtext(f"size/{side}", "0") for side in ("width", "height"))
    sides = [json_values.text_as_number(side, f"{where}: size") for side in sides]
    size = image_size(sides, where)
    boxes = []
    for number, thing in enumerate(root.iterfind("object"), start=1):
        place = f"{where}: object {number}"
        class_name = json_values.as_name(thing.findtext("name", ""), f"{place}: name")
        if skip_difficult and thing.findtext("difficult", "0").strip() == "1":
            report[DIFFICULT] += 1
            continue
        xyxy = fit(_read_bndbox(thing, place, first_pixel), size, report)
        if xyxy:
            boxes.append(Box(class_name, xyxy))
    name = root.findtext("filename", "").strip() or name
    name = image_name(name, f"{where}: filename")
    return AnnotatedImage(name, size, tuple(boxes), where)


def _read_bndbox(thing, place, first_pixel):
    """Returns the edges of an object's box; its parts, such as a head, have others."""
    left, top, right, bottom = (
        json_values.text_as_number(
            thing.findtext(f"bndbox/{edge}", ""), f"{place}: {edge} of bndbox"
        )
        for edge in ("xmin", "ymin", "xmax", "ymax")
    )
    left, right = _pixels_to_edges(left, right, first_pixel)
    top, bottom = _pixels_to_edges(top, bottom, first_pixel)
    return left, top, right, bottom


def _pixels_to_edges(first, last, first_pixel):
    # The box includes both pixels: the smaller one's outer edge is before it.
    if first > last:
        return first, last - first_pixel
    return first - first_pixel, last


class _WithoutDoctype(etree.TreeBuilder):
    """Builds a tree; stops where a DTD starts, before any entity is defined."""

    where = ""

    def doctype(self, name, *ids):
        raise InputError(
            f"{self.where}: expected a Pascal VOC annotation, which has no DTD, got "
            f"<!DOCTYPE {name:.60}>; nothing was read. Is it a web page?"
        )

    def close(self):
        # A damaged file has no tree; the parser itself then reports the damage.
        with suppress(etree.XMLSyntaxError):
            return super().close()


def _parse_xml(content, where):
    builder = _WithoutDoctype()
    builder.where = where
    parser = etree.XMLParser(
        target=builder,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        return etree.fromstring(content, parser)
    except InputError:
        raise
    except (etree.XMLSyntaxError, ValueError) as error:
        # lxml raises a ValueError for a default namespace.
        message = " ".join(
            str(getattr(error, "msg", error)).split()
        )  # It can have line ends.
        raise InputError(
            f"{where}: malformed XML: {message}; is the file incomplete, or another "
            "kind of XML?"
        ) from error
