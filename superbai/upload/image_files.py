"""The image files of an upload: which file is which image, its size and its bytes."""

import contextlib
import threading
from collections import Counter

from superbai import image_matching
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import archives
from yolov3_tf2.files.prepared_image import prepare_image


class ImageFiles:
    """Image files, zips and folders, opened; use as a context manager.

    Attributes:
        changes: Counter of how images that were uploaded differ from their files; see
            `images.DecodedImage`.
    """

    def __init__(self, paths, identities):
        """Opens the files and finds the images in them.

        Args:
            paths: list of `pathlib.Path`: images, zips and folders; may be empty.
            identities: list of the (dataset, key) of all images.

        Raises:
            InputError: a zip cannot be read, or several files fit one image.
        """
        loose = [path for path in paths if not archives.is_archive(path)]
        groups = [path for path in paths if path not in loose] + [loose] * bool(loose)
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(archives.open_archive(g)) for g in groups]
            archives.choose_encodings(opened, map("/".join, identities))
            match = image_matching.match_images(identities, opened, set(identities))
            self._opened = stack.pop_all()
        self._entries = match.entries
        # Perhaps other images: cameras number their files from 1 repeatedly.
        self._doubtful = {
            identity: place.entry for identity, place in match.elsewhere.items()
        }
        self._lock = threading.Lock()
        self.changes = Counter()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._opened.close()

    def find_size(self, identity):
        """Returns the (width, height) of an image upright; None if it is unknown.

        Args:
            identity: its (dataset, key).
        """
        if identity not in self._entries:
            return None
        try:
            prepared = prepare_image(*self._read(identity))
        except InputError:
            return None  # `read_upright` raises it where the image is needed.
        return prepared.width, prepared.height

    def read_upright(self, item):
        """Returns the bytes of an image, turned to the size that its boxes are for.

        They have no EXIF orientation, which the Suite would apply.

        Args:
            item: an `upload_plan.Item`.

        Returns:
            The bytes of a JPEG or PNG; None if no file is this image.

        Raises:
            InputError: the file is not an image, or probably another image.
        """
        identity = (item.dataset, item.key)
        if identity in self._doubtful:
            entry = self._doubtful[identity]
            raise InputError(
                f"{item.name}: expected its file among the images, got "
                f"{entry.archive.name}: {entry.name}, which has the same file name but "
                "lies in another folder; if it is this image, move it to a folder of "
                "the right name."
            )
        if identity not in self._entries:
            return None
        encoded, where = self._read(identity)
        try:
            # The range of all images of 16 bits is not known here: each has its own.
            prepared = prepare_image(encoded, where, item.size, gray_range=None)
            with self._lock:
                self.changes.update(prepared.changes)
            return prepared.encoded
        except InputError:
            upright = prepare_image(encoded, where)  # Raises if it is not an image.
        raise InputError(
            f"{where}: the image is {upright.width}x{upright.height}, but the "
            f"annotations of {item.name} are for {item.size[0]}x{item.size[1]}; is it "
            "another image, or was it resized?"
        )

    def _read(self, identity):
        """Returns the bytes of an image file and its name in messages."""
        entry = self._entries[identity]
        with self._lock:  # A zip is one file with one position.
            encoded = entry.archive.read(entry.name)
        return encoded, f"{entry.archive.name}: {entry.name}"
