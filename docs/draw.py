"""Draws the images of the README from a run of the pipeline on the sample.

python pipeline.py
python docs/draw.py .valohai/outputs/RUN
"""

import argparse
import json
import sys
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from valohai_step import runtime  # noqa: E402

COLUMNS, ROWS, TILE, GAP = 4, 2, 300, 10
# Where the diagram of the pipeline has its steps, and what flows along its arrows.
PLACES = {
    "convert-superbai": (0, 1),
    "weights": (0, 0),
    "train": (1, 0.5),
    "detect": (2, 0.5),
    "upload-superbai": (3, 0.5),
}
FLOWS = [
    ("convert-superbai", "train", "train/, test/"),
    ("weights", "train", "model/"),
    ("train", "detect", "model/"),
    ("detect", "upload-superbai", "detections.json"),
]


def pipeline_diagram():
    """Draws the steps and what flows between them; returns a matplotlib figure."""
    figure = Figure(figsize=(11, 2.6), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-0.75, 3.5), ylim=(-0.5, 1.5))
    axes.axis("off")
    box = {"boxstyle": "round,pad=0.6", "fc": "#eef3fb", "ec": "#2f5ea8"}
    patches = {}
    for name, place in PLACES.items():
        style = {**box, "linestyle": "--"} if name == "upload-superbai" else box
        text = axes.text(*place, name, ha="center", va="center", size=11, bbox=style)
        patches[name] = text.get_bbox_patch()
    for source, target, flow in FLOWS:
        (x1, y1), (x2, y2) = PLACES[source], PLACES[target]
        arrow = {"arrowstyle": "-|>", "color": "#555"}
        ends = {"patchA": patches[source], "patchB": patches[target]}
        axes.annotate("", (x2, y2), (x1, y1), arrowprops=arrow | ends)
        axes.text(
            *((x1 + x2) / 2, (y1 + y2) / 2 + 0.14), flow, ha="center", size=9, c="#555"
        )
    for name, text in (
        ("convert-superbai", "images.zip\nlabels.zip"),
        ("weights", "yolov3.weights"),
    ):
        x, y = PLACES[name]
        axes.text(x - 0.42, y, text, ha="right", va="center", size=9, c="#555")
    return figure


def detections_mosaic(run):
    """Draws the detections of the first images; returns a `PIL.Image.Image`."""
    runtime.import_tensorflow()
    import tensorflow as tf

    from yolov3_tf2.data import records
    from yolov3_tf2.evaluation import draw
    from yolov3_tf2.files.images import load_rgb

    found = json.loads((run / "detect" / "detections.json").read_text("utf-8"))
    names = [category["name"] for category in found["categories"]]
    (path,) = (run / "convert-superbai" / "test").iterdir()
    encoded = {
        record["source_id"].numpy().decode(): record["encoded"].numpy()
        for record in map(records.parse_example, tf.data.TFRecordDataset(str(path)))
    }
    side = TILE + GAP
    mosaic = Image.new("RGB", (COLUMNS * side - GAP, ROWS * side - GAP), "white")
    for place, entry in enumerate(found["images"][: COLUMNS * ROWS]):
        name = entry["file_name"]
        image = load_rgb(encoded[name], name)
        scale = TILE / image.width
        own = [a for a in found["annotations"] if a["image_id"] == entry["id"]]
        tile = draw.draw_boxes(
            image.resize((TILE, round(image.height * scale))),
            [
                [scale * v for v in (x, y, x + width, y + height)]
                for x, y, width, height in (a["bbox"] for a in own)
            ],
            [a["category_id"] - 1 for a in own],
            names,
            [a["score"] for a in own],
        )
        row, column = divmod(place, COLUMNS)
        mosaic.paste(tile, (column * side, row * side))
    return mosaic


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="outputs of a run of the pipeline")
    run = parser.parse_args().run
    docs = REPOSITORY / "docs"
    pipeline_diagram().savefig(docs / "pipeline.png")
    detections_mosaic(run).save(docs / "detections.png")
    for name, source in (
        ("preview.jpg", run / "convert-superbai" / "preview.jpg"),
        ("curves.png", run / "train" / "plots" / "curves.png"),
    ):
        with Image.open(source) as image:
            image.thumbnail((900, 900))
            image.save(docs / name)


if __name__ == "__main__":
    main()
