"""A version of a project of Superb AI's new platform: frozen images with their labels.

`VersionReader` writes one as an export of the Suite.
"""

import contextlib
import json
import zipfile
from collections import Counter, deque
from concurrent.futures import Future
from queue import SimpleQueue

from superbai.platform import platform_labels
from superbai.platform.platform_errors import PlatformError
from superbai.platform.platform_lookup import is_id
from superbai.upload.upload_run import complete, start_thread
from yolov3_tf2.errors import InputError
from yolov3_tf2.files.image_kinds import START_BYTES, image_kind
from yolov3_tf2.files.images import open_image, read_orientation
from yolov3_tf2.files.json_values import as_dict, as_dicts, expect

# Images that are fetched at the same time.
THREADS = 8
EMPTY = "images without a shape that counts"
PURGED = "images whose files are deleted on the platform"
OF_MODELS = "shapes that a model has drawn"
ONLY_MODELS = "images that only a model has labelled"
UNREADABLE = "images whose file is empty or none of an image"


class VersionReader:
    """Writes the images and labels of a version in the form of an export of the Suite.

    Attributes:
        left_out: Counter of what is left out, by reason.
        counts: Counter of `images`, `boxes` and other types of shapes.
        num_rotated: number of images whose file has an EXIF rotation.
        num_partly: number of images with shapes of models, left out, and other shapes.
        unreadable: list of the names of the images that are left out as `UNREADABLE`.
    """

    def __init__(self, api, project, version, *, with_models, with_empty):
        """Lists the images of the version.

        Args:
            api: a `platform_api.PlatformApi`.
            project, version: as the platform describes them.
            with_models: use shapes that a model has drawn, too.
            with_empty: use images without any shape, too.

        Raises:
            InputError: the platform lists another number of images than it has frozen.
        """
        self._api = api
        self._with_models, self._with_empty = with_models, with_empty
        self._name = f"version '{version['name']}' of project '{project['name']}'"
        self._path = f"/projects/{project['id']}/versions/{version['id']}/assets"
        self._dataset = platform_labels.clean_folder(str(project["name"]))
        frozen = as_dict(version.get("frozen_classes"), self._name, optional=True)
        self._classes = as_dicts(
            frozen.get("classes"), f"{self._name}: classes", "class", optional=True
        )
        self.left_out, self.counts = Counter(), Counter()
        self.num_rotated = self.num_partly = 0
        self.unreadable = []
        listed = list(api.pages(self._path, f"{self._name}: cannot list its images"))
        expected = version.get("frozen_asset_count")
        if expected is not None and len(listed) != expected:
            raise InputError(
                f"{self._name}: expected {expected} images, the platform lists "
                f"{len(listed)}; try again later."
            )
        for asset in listed:
            where = f"{self._name}: asset_id of an image"
            expect(is_id(str(asset.get("asset_id"))), "an id", asset, where)
        listed.sort(key=lambda a: (str(a.get("filename")), str(a.get("asset_id"))))
        self._keys = platform_labels.make_keys(listed)
        self.assets = [asset for asset in listed if self._is_useful(asset)]

    def _is_useful(self, asset):
        """Tells whether an image needs to be fetched; counts it otherwise."""
        if asset.get("status") == "purged":
            self.left_out[PURGED] += 1
        elif asset.get("annotation_count") == 0 and not self._with_empty:
            self.left_out[EMPTY] += 1
        else:
            return True
        return False

    def write(self, folder, bar):
        """Writes `images.zip` and `labels.zip`.

        Args:
            folder: a `pathlib.Path`.
            bar: progress bar with a method `update`.

        Raises:
            InputError: an image cannot be fetched or read, or none is left.
        """
        names = {str(c.get("id")): str(c.get("name")) for c in self._classes}
        used = set()
        with (
            zipfile.ZipFile(folder / "images.zip", "w") as images,
            zipfile.ZipFile(folder / "labels.zip", "w", zipfile.ZIP_DEFLATED) as texts,
            # Ends the threads, also where this one is interrupted.
            contextlib.closing(self._fetch_all()) as fetched,
        ):
            for asset, shapes, encoded in fetched:
                bar.update()
                if encoded is None:
                    continue
                key = self._keys[asset["asset_id"]]
                where = f"{self._name}: image {key}"
                label = platform_labels.make_label(shapes, names, where)
                meta, meta_name, label_name = platform_labels.make_meta(
                    asset, self._dataset, key
                )
                images.writestr(f"{self._dataset}/{key}", encoded)
                _write_json(texts, meta_name, meta)
                _write_json(texts, label_name, label)
                self._count(shapes, encoded, where)
                used |= {(str(s.get("class_id")), str(s.get("type"))) for s in shapes}
            project = platform_labels.make_project(self._classes, used)
            _write_json(texts, "project.json", project)
        if not self.counts["images"]:
            reasons = ", ".join(f"{n} {why}" for why, n in self.left_out.items())
            raise InputError(
                f"{self._name}: no image is left ({reasons or 'it has none'})."
            )

    def _fetch_all(self):
        """Yields what `_fetch` returns for each image, in their order."""
        tasks, waiting = SimpleQueue(), deque()
        for _ in range(THREADS):
            start_thread(_work, tasks, lambda future: None)
        try:
            for asset in self.assets:
                waiting.append(Future())
                tasks.put((waiting[-1], self._fetch, asset))
                if len(waiting) >= 2 * THREADS:
                    yield self._note(*waiting.popleft().result())
            while waiting:
                yield self._note(*waiting.popleft().result())
        except BaseException:
            # Nobody waits for the running ones; the others never start.
            self._api.should_stop = lambda: True
            for future in waiting:
                future.cancel()
            raise
        finally:
            for _ in range(THREADS):
                tasks.put(None)

    def _fetch(self, asset):
        """Returns the description of an image, its `Shapes`, and the bytes of its file.

        These are None where the image is left out.
        """
        where = f"{self._name}: image {self._keys[asset['asset_id']]}"
        detail, shapes = self._read(asset, where)
        is_empty = not shapes.used
        # Nobody has said that an image which only a model has labelled is empty.
        if is_empty and (shapes.num_of_models or not self._with_empty):
            return detail, shapes, None
        for is_last in (False, True):
            address = detail.get("image_url")
            if not address:
                raise InputError(f"{where}: the platform has no address of its file.")
            try:
                encoded = self._api.fetch(address, f"{where}: cannot fetch its file")
                _check_page(encoded, where)
                return detail, shapes, encoded
            except PlatformError as error:
                # Addresses are valid for an hour, which a slow connection may need.
                if is_last or error.status != 403:
                    raise
            detail, shapes = self._read(asset, where)
        raise AssertionError("the last try returns or raises")

    def _read(self, asset, where):
        action = f"{where}: cannot read its shapes"
        path = f"{self._path}/{asset['asset_id']}"
        detail = as_dict(self._api.get(path, action), where)
        shapes = platform_labels.select_shapes(
            detail, where, with_models=self._with_models
        )
        return detail, shapes

    def _note(self, asset, shapes, encoded):
        """Counts what is left out of an image, whose shapes and bytes it returns."""
        if shapes.num_of_models:
            self.left_out[OF_MODELS] += shapes.num_of_models
            self.num_partly += bool(shapes.used)
        if encoded is None:
            self.left_out[ONLY_MODELS if shapes.num_of_models else EMPTY] += 1
        elif not image_kind(encoded[:START_BYTES]):
            self.left_out[UNREADABLE] += 1
            self.unreadable.append(self._keys[asset["asset_id"]])
            encoded = None
        return asset, shapes.used, encoded

    def _count(self, shapes, encoded, where):
        self.counts["images"] += 1
        for shape in shapes:
            is_box = shape.get("type") == "bbox"
            self.counts["boxes" if is_box else f"{shape.get('type')} shapes"] += 1
        self.num_rotated += _is_rotated(encoded, where)


def _work(tasks):
    """Executes tasks, (future, function, argument), until one is None.

    In threads that the interpreter does not wait for, unlike those of an executor.
    """
    while (task := tasks.get()) is not None:
        future, function, argument = task
        if future.set_running_or_notify_cancel():
            complete(future, function, argument)


def _check_page(encoded, where):
    """Raises an `InputError` if what was fetched as a file is a web page."""
    start = encoded[:200].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise InputError(
            f"{where}: expected its file, got a web page; is it the login page of a "
            "network or a proxy?"
        )


def _is_rotated(encoded, where):
    """Tells whether an image has an EXIF rotation; False if it cannot be read."""
    try:
        image = open_image(encoded, where)
        return read_orientation(image, encoded, where) != 1
    except InputError:
        return False  # Whoever converts it says what is wrong with it.


def _write_json(archive, name, content):
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise InputError(f"{name}: expected finite numbers, got others.") from None
    archive.writestr(name, text.encode("utf-8"))
