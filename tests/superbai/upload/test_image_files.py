"""Images for an upload: what is sent is what people see, and is counted."""

import io

import numpy as np
import pytest
from PIL import Image
from suite_export import encode

from superbai.upload.image_files import ImageFiles
from superbai.upload.upload_plan import Item
from yolov3_tf2.errors import InputError


def test_images_are_sent_as_people_see_them(tmp_path):
    values = np.random.default_rng(0).integers(7000, 7256, (48, 64), dtype="uint16")
    clear = Image.new("RGBA", (64, 48), (200, 30, 40, 0))
    (tmp_path / "deep.png").write_bytes(encode(Image.fromarray(values), "PNG"))
    (tmp_path / "clear").write_bytes(encode(clear, "PNG"))
    (tmp_path / "phone.avif").write_bytes(encode(clear.convert("RGB"), "AVIF"))
    keys = ["deep.png", "clear", "phone.avif"]
    sent = {}
    with ImageFiles([tmp_path], [("", key) for key in keys]) as files:
        for key in keys:
            encoded = files.read_upright(Item("", key, (64, 48), {}, set()))
            sent[key] = Image.open(io.BytesIO(encoded))
    levels = np.asarray(sent["deep.png"].convert("L"))
    assert (levels.min(), levels.max()) == (0, 255) and levels.std() > 60
    assert sent["clear"].convert("RGB").getextrema() == ((255, 255),) * 3
    assert sent["phone.avif"].format == "JPEG"
    assert files.changes == {
        "images of 16 bits per channel, scaled to 8": 1,
        "images with transparent pixels, drawn on white": 1,
    }


def test_a_file_that_may_be_another_image_is_not_sent(tmp_path):
    encoded = encode(Image.new("RGB", (64, 48)), "PNG")
    for name in ("cam1/a.png", "cam2/b.png", "other/c.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(encoded)
    identities = [("cam1", "a.png"), ("cam1", "b.png"), ("cam1", "c.png")]
    identities.append(("cam2", "d.png"))
    with ImageFiles([tmp_path], identities) as files:
        sizes = [files.find_size(identity) for identity in identities]
        assert sizes == [(64, 48), None, None, None]
        items = [Item(*identity, (64, 48), {}, set()) for identity in identities]
        assert files.read_upright(items[0]) and files.read_upright(items[3]) is None
        for item, name in zip(items[1:3], ("cam2/b.png", "other/c.png"), strict=True):
            message = f"{item.name}: expected its file .* got {tmp_path}: {name}, which"
            with pytest.raises(InputError, match=message):
                files.read_upright(item)
