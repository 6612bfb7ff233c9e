"""Reads the labels of a data set in Pascal VOC's format: an XML for each image."""

from collections import Counter, defaultdict

from superbai.data_sets.files import without_ending
from superbai.data_sets.images import Labelled
from superbai.data_sets.labels import UNLISTED, Labels, box_array, keep_box, note_report
from superbai.data_sets.voc_lists import read_lists
from superbai.data_sets.yolo_description import is_name_list
from yolov3_tf2.errors import InputError, collecting
from yolov3_tf2.files import yolo_config
from yolov3_tf2.files.voc_annotations import read_voc

_BACKGROUND = "background"  # In CVAT's labelmap.txt.


def find_label_files(files):
    """Returns the `File` that are XMLs of annotations, those of damaged ones too."""
    xmls = [file for file in files.labels if file.ending == ".xml"]
    found = [file for file in xmls if _is_annotation(file)]
    if not found or len(found) == len(xmls):
        return found
    stems = {without_ending(image.base) for image in files.images}
    numbers = {file.number for file in found}
    return [
        file
        for file in xmls
        if file.number in numbers or without_ending(file.base) in stems
    ]


def read_voc_data_set(label_files, files, notes):
    """Returns the `Labels` of XML files.

    Args:
        label_files: the result of `find_label_files`.
        files: a `DataSetFiles`.
        notes: `Notes` to add to.

    Raises:
        InputError: a list of class names lacks one that is used, or the lists of images
            are wrong.
    """
    listed = read_lists(label_files, files, notes)
    read, report, num_annotations = [], Counter(), 0
    for file in label_files:
        split = listed.split_of.get(file.number)
        if listed.split_of and split is None:
            notes.leave_out(UNLISTED, file.path)
            continue
        image, found, reasons = None, Counter(), []
        with collecting(reasons):
            image = read_voc(
                file.read(),
                file.where,
                0,
                found,
                fit=keep_box,
                skip_difficult=True,
                name=f"{without_ending(file.base)}.jpg",
            )
            num_annotations += len(image.boxes) + sum(found.values())
        report += found
        read.append((file, split, image, "".join(reasons)))
    note_report(report, notes)
    used = {box.class_name for _, _, image, _ in read if image for box in image.boxes}
    class_names = _class_names(used, files)
    first_pixel = _first_pixel(image for _, _, image, _ in read if image)
    if first_pixel:
        notes.assumed[
            "VOC data sets with whole numbers from 1 only: the first pixel is 1, and "
            "boxes include their last one, as in VOC's own"
        ] += 1
    index = {name: number for number, name in enumerate(class_names)}
    images = _Images(files)
    labelled = [_labelled(*each, index, first_pixel, images) for each in read]
    return Labels(
        "Pascal VOC",
        class_names,
        labelled,
        len(label_files),
        num_annotations,
        len(class_names),
        missing=listed.missing,
    )


def _is_annotation(file):
    try:
        start = file.read_start(4096)
    except InputError:
        return False
    return b"<annotation" in start.replace(b"\0", b"")  # Also in UTF-16.


def _labelled(file, split, image, reason, index, first_pixel, images):
    """Returns the `Labelled` of an XML; `image` is None where it cannot be read."""
    rows = [
        (
            box.xyxy[0] - first_pixel,
            box.xyxy[1] - first_pixel,
            *box.xyxy[2:],
            index[box.class_name],
            False,
        )
        for box in (image.boxes if image else ())
    ]
    stem = without_ending(file.base)
    name, places, conflict = images.find(file, image.name if image else stem)
    return Labelled(
        file,
        file.base,
        name,
        places,
        split,
        image.size if image else None,
        box_array(rows),
        reason or conflict,
    )


class _Images:
    """The images of a data set, by their paths and by those without extension."""

    def __init__(self, files):
        self._paths = {image.path for image in files.images}
        self._by_stem = defaultdict(list)
        for path in sorted(self._paths):
            self._by_stem[without_ending(path)].append(path)
        self._by_base, self._by_stem_base = defaultdict(list), defaultdict(list)
        for image in files.images:
            self._by_base[image.base].append(image)
            self._by_stem_base[without_ending(image.base)].append(image)

    def find(self, file, filename):
        """Finds the image of an XML.

        Programs that rename files leave the `filename` in the XML as it was: the name
        of the XML itself then counts.

        Returns:
            Its name; the paths at which it may lie; and what is wrong where both names
            are those of images, else an empty text.
        """
        stem = without_ending(file.base)
        named = [p for p in _places(file, filename) if p in self._paths]
        beside = [
            path for place in _places(file, stem) for path in self._by_stem[place]
        ]
        if named and beside and named[0] != beside[0] and filename != stem:
            conflict = _describe_conflict(file, filename, named[0], beside[0])
            return stem, beside[:1], conflict
        if named or beside:
            return filename, named or beside[:1], ""
        own, others = (
            self._by_base.get(filename.rpartition("/")[2], ()),
            self._by_stem_base.get(stem, ()),
        )
        # In one folder, either could be meant, as above.
        folders = {(id(image.archive), image.folder): image for image in own}
        for other in others:
            first = folders.get((id(other.archive), other.folder), other)
            if first.base != other.base:
                conflict = _describe_conflict(file, filename, first.path, other.path)
                return stem, [other.path], conflict
        if others and not own:
            filename = others[0].base
        return filename, _places(file, filename), ""


def _describe_conflict(file, filename, named, beside):
    return (
        f"{file.where}: expected the name of its image, got filename '{filename}', but "
        f"{named} and {beside} both exist; correct the filename."
    )


def _places(file, name):
    """Returns the paths at which the image of an XML may lie, the likeliest first."""
    above = file.folder.rstrip("/").rpartition("/")[0]
    above += "/" * bool(above)
    folders = (file.folder, f"{above}JPEGImages/", f"{above}images/", above)
    folders += (f"{file.folder}JPEGImages/", f"{file.folder}images/")
    before, is_below, rest = f"/{file.folder}".rpartition("/Annotations/")
    if is_below:
        folders = (
            tuple(f"{before}/{own}/{rest}"[1:] for own in ("JPEGImages", "images"))
            + folders
        )
    folders += ("JPEGImages/", "images/", "")
    return [folder + name for folder in dict.fromkeys(folders)]


def _class_names(used, files):
    """Returns the class names of a list in the data set; else the used ones, sorted."""
    for file in filter(is_name_list, files.others):
        content = file.read(yolo_config.MAX_YAML_BYTES)
        text = yolo_config.decode_text(content, file.where)
        # CVAT: `# label:color_rgb:parts:actions`, then `cat:128,0,0::`.
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        if len(lines) < len(text.splitlines()):
            lines = [line.partition(":")[0] for line in lines]
            lines = [name for name in lines if name != _BACKGROUND or name in used]
        lines = filter(str.strip, lines)
        names = yolo_config.read_name_list("\n".join(lines).encode(), file.where)
        unknown = sorted(used - set(names))
        if unknown:
            raise InputError(
                f"{file.where}: expected the names of all classes, got none for "
                f"{', '.join(unknown[:10])}; add them, or remove the file."
            )
        return names
    return sorted(used)


def _first_pixel(images):
    """Returns the number of the first pixel: 1 in VOC's own data sets, else 0.

    Most programs write edges, from 0 to the width of the image. A fraction or an edge
    at 0 shows that; where neither occurs, both are possible and differ by one pixel.
    """
    for image in images:
        for box in image.boxes:
            if min(box.xyxy) < 1 or any(edge % 1 for edge in box.xyxy):
                return 0
    return 1
