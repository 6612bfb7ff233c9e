"""Finds the images in files, folders, zips and TFRecord files."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from yolov3_tf2.errors import InputError, reason
from yolov3_tf2.files import archives
from yolov3_tf2.files.archive_entries import is_hidden
from yolov3_tf2.files.image_kinds import is_image_file, split_images


class Source(NamedTuple):
    """An image that has not been read yet.

    Attributes:
        name: file name, in a zip or folder with the path inside it.
        where: name of the image in error messages.
        read: function that returns the encoded image; raises an `InputError` or
            `OSError` if it cannot.
    """

    name: str
    where: str
    read: Callable[[], bytes]


def walk_images(paths) -> Iterator[Source]:
    """Yields a `Source` for every image in `paths`, in their order.

    Args:
        paths: list of `pathlib.Path`: images, folders and zips of images (zips are read
            in place) and TFRecord files written by `records.py`.

    Raises:
        InputError: a zip or TFRecord file is damaged.
    """
    for path in paths:
        if path.suffix == ".tfrecord":
            yield from _walk_records(path)
        elif archives.is_archive(path):
            with archives.open_archive(path) as archive:
                for name in split_images(archive)[0]:
                    yield Source(
                        name,
                        f"{archive.name}: {name}",
                        lambda archive=archive, name=name: archive.read(name),
                    )
        elif _is_image_path(path):
            yield Source(
                _replace_invalid_utf8(path.name),
                _replace_invalid_utf8(str(path)),
                path.read_bytes,
            )


def count_images(paths):
    """Counts the images that `walk_images` yields, without reading them.

    Returns:
        A pair: the number of images, and a list with the names of the other files.
    """
    from yolov3_tf2.data import records

    images, others = 0, []
    for path in paths:
        if path.suffix == ".tfrecord":
            images += records.count_records(path)
        elif archives.is_archive(path):
            with archives.open_archive(path) as archive:
                in_archive, not_images = split_images(archive)
                images += len(in_archive)
                others += not_images
        elif _is_image_path(path):
            images += 1
        elif not is_hidden(path.name):
            others.append(_replace_invalid_utf8(path.name))
    return images, others


def _is_image_path(path):
    return not is_hidden(path.name) and is_image_file(path)


def _walk_records(path):
    # Imported here: images and zips do not need TensorFlow.
    import tensorflow as tf

    from yolov3_tf2.data import records

    try:
        for serialized in tf.data.TFRecordDataset(str(path)):
            record = records.parse_example(serialized)
            name, encoded = (record[k].numpy() for k in ("source_id", "encoded"))
            name = name.decode("utf-8", "replace")
            yield Source(name, f"{path}: {name}", lambda encoded=encoded: encoded)
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise InputError(
            f"{path}: a record cannot be read: {reason(error)}; is the file damaged, "
            "or not written by convert_superbai.py?"
        ) from error


def _replace_invalid_utf8(name):
    """Returns a file name with `?` for each byte that is not valid UTF-8."""
    return name.encode("utf-8", "replace").decode("utf-8")
