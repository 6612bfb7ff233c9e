"""Images for an upload: what is sent is what people see, and is counted."""

import io

import numpy as np
from PIL import Image
from suite_export import encode

from superbai.image_files import ImageFiles
from superbai.upload_plan import Item


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
