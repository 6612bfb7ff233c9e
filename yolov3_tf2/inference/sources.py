"""Images out of files, folders, zips and TFRecord files."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from yolov3_tf2.errors import InputError, reason
from yolov3_tf2.files import archives
from yolov3_tf2.files.images import is_image_name


class Source(NamedTuple):
    """A picture before it is read.

    Attributes:
        name: its own name, with its folders in a zip or folder.
        where: what to call it in an error.
        read: returns its bytes; raises an `InputError` where that fails.
    """

    name: str
    where: str
    read: Callable[[], bytes]


def walk_images(paths) -> Iterator[Source]:
    """Yields every picture in `paths`, in their order.

    Args:
        paths: list of `pathlib.Path`: pictures, folders and zips of pictures (never
            extracted) and TFRecord files of `records.py`.

    Raises:
        InputError: a zip or TFRecord file is damaged.
    """
    for path in paths:
        if path.suffix == ".tfrecord":
            yield from _walk_records(path)
        elif archives.is_archive(path):
            with archives.open_archive(path) as archive:
                for name in filter(is_image_name, archive.files):
                    yield Source(
                        name,
                        f"{archive.name}: {name}",
                        lambda archive=archive, name=name: archive.read(name),
                    )
        else:
            yield Source(_text(path.name), _text(str(path)), path.read_bytes)


def count_images(paths):
    """Counts what `walk` will yield, without reading the pictures.

    Returns:
        The number of pictures, and that of the other files in zips and folders.
    """
    from yolov3_tf2.data import records

    pictures, others = 0, 0
    for path in paths:
        if path.suffix == ".tfrecord":
            pictures += records.count_records(path)
        elif archives.is_archive(path):
            with archives.open_archive(path) as archive:
                number = sum(map(is_image_name, archive.files))
                pictures += number
                others += len(archive.files) - number
        else:
            pictures += 1
    return pictures, others


def _walk_records(path):
    # Imported here: pictures and zips need no TensorFlow.
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
            "or not one of convert_superbai.py?"
        ) from error


def _text(name):
    """A file's name as text, also where its bytes are none."""
    return name.encode("utf-8", "replace").decode("utf-8")
