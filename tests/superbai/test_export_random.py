"""Random exports of every generation, and exports that are damaged at random."""

import json
import tempfile
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
import suite_export
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from superbai.export import Export
from yolov3_tf2.names import normalise_name

WIDTH, HEIGHT = suite_export.WIDTH, suite_export.HEIGHT
EXTENSIONS = ["", ".jpg", ".JPG", ".jpeg", ".png", ".jpg.b.jpg"]
CONTROL = ["Cc", "Cs", "Zl", "Zp"]
OTHER_KINDS = ["polyline", "keypoint", "cuboid2d"]

# Letters of any script, spaces and dots; no slashes and no control characters.
names = st.text(
    st.characters(exclude_categories=CONTROL, exclude_characters="/\\"),
    min_size=1,
    max_size=8,
).filter(lambda name: not name.startswith(".") and name != "__MACOSX")
# With letters that have two forms in Unicode.
names = st.one_of(names, st.sampled_from(["사진", "é.a", "사진 2"]))
numbers = st.one_of(
    st.integers(-80, 150), st.floats(-80, 150).map(lambda x: round(x, 3))
)


@st.composite
def keys(draw):
    """Data keys, with folders and extensions."""
    key = "/".join(draw(st.lists(names, min_size=1, max_size=3)))
    return key + draw(st.sampled_from(EXTENSIONS))


@st.composite
def things(draw, classes):
    """An object, and the box that it is or that lies around it."""
    name, kind = draw(st.sampled_from(classes))
    if kind == "box":
        x, y, width, height = (draw(numbers) for _ in range(4))
        thing = suite_export.box(x, y, width, height, name)
        xs, ys = (x, x + width), (y, y + height)
    elif kind == "polygon":
        points = draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5))
        thing = suite_export.polygon(*points, name=name)
        xs, ys = zip(*points, strict=True)
    elif kind == "rbox":
        x, y, width, height = (draw(numbers) for _ in range(4))
        quarters = draw(st.integers(-4, 8))
        thing = suite_export.rotated(x, y, width, height, 90 * quarters, name)
        if quarters % 2:
            width, height = height, width
        xs = (x - abs(width) / 2, x + abs(width) / 2)
        ys = (y - abs(height) / 2, y + abs(height) / 2)
    else:
        return suite_export.shape(kind, name), None
    return thing, (min(xs), min(ys), max(xs), max(ys))


@st.composite
def exports(draw):
    """A generation, classes, and images with the objects that they show."""
    generation = draw(st.sampled_from(suite_export.GENERATIONS))
    class_names = st.text(
        st.characters(exclude_categories=CONTROL),
        min_size=1,
        max_size=8,
    )
    classes = draw(
        st.lists(
            st.tuples(
                class_names.map(normalise_name).filter(bool),
                st.sampled_from(["box", "polygon", "rbox", *OTHER_KINDS]),
            ),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    classes.insert(draw(st.integers(0, len(classes))), ("a box", "box"))
    datasets = draw(st.lists(names, min_size=1, max_size=2, unique_by=normal))
    found = draw(
        st.lists(
            st.tuples(st.sampled_from(datasets), keys()),
            min_size=1,
            max_size=5,
            unique_by=lambda pair: tuple(map(normal, pair)),
        )
    )
    # If `a` and `a.jpg` both get one more extension in the zip, it is ambiguous.
    keys_of = [(dataset, normal(key)) for dataset, key in found]
    stems = [(d, str(PurePosixPath(key).with_suffix(""))) for d, key in keys_of]
    assume(
        not any(
            key == stem and number != other
            for number, key in enumerate(keys_of)
            for other, stem in enumerate(stems)
        )
    )
    folder = draw(st.sampled_from(["", "Project/", "a/b/"]))
    more = draw(st.sampled_from(["", ".jpg", ".png"]))
    form = draw(st.sampled_from(["NFC", "NFD"]))
    truth = []
    for dataset, key in found:
        objects = draw(st.lists(things(classes), max_size=4))
        item = suite_export.labelled(
            key,
            *(thing for thing, _ in objects),
            dataset=dataset,
            entry=unicodedata.normalize(form, f"{folder}{dataset}/{key}{more}"),
            encoded=suite_export.encoded_image(
                kind=draw(st.sampled_from(["JPEG", "PNG"]))
            ),
            tags=draw(st.lists(st.sampled_from([" Night", "Test", "train"]))),
            status=draw(st.sampled_from(["SUBMITTED", "SUBMITTED", "WORKING"])),
            size=draw(st.sampled_from([None, (WIDTH, HEIGHT)])),
        )
        truth.append((item, objects))
    return generation, classes, truth


def normal(text):
    return unicodedata.normalize("NFC", text)


def clipped(box):
    left, top, right, bottom = box
    inside = (max(left, 0), max(top, 0), min(right, WIDTH), min(bottom, HEIGHT))
    return inside if min(inside[2] - inside[0], inside[3] - inside[1]) >= 1 else None


@settings(max_examples=300)
@given(
    export=exports(),
    tags_are_objects=st.booleans(),
    slash=st.booleans(),
    wrapped=st.booleans(),
    polygons=st.booleans(),
    unsubmitted=st.booleans(),
    downloaded=st.booleans(),
)
def test_what_is_written_is_read(
    export, tags_are_objects, slash, wrapped, polygons, unsubmitted, downloaded
):
    generation, classes, truth = export
    kinds = ("box", "polygon", "rbox") if polygons else ("box",)
    items = [item for item, _ in truth]
    images, labels = suite_export.build(items, generation, classes)
    if downloaded:  # The folder of `superb download`, with the images in it.
        labels = suite_export.build_download(items, generation, classes)
    for content in labels.values():
        if isinstance(content, dict) and "data_key" in content:
            if tags_are_objects and not downloaded:  # There they are so already.
                content["tags"] = [{"name": tag} for tag in content["tags"]]
            if slash:
                content["data_key"] = "/" + content["data_key"]
    if wrapped:
        labels = {f"export/{name}": content for name, content in labels.items()}
        for content in labels.values():
            if isinstance(content, dict) and "label_path" in content:
                assert content["label_path"][0].startswith("labels/")
        labels["__MACOSX/export/._project.json"] = b"junk"

    expected = {}
    names = list(dict.fromkeys(name for name, kind in classes if kind in kinds))
    for item, objects in truth:
        shown = [
            (clipped(box), names.index(thing["name"]))
            for thing, box in objects
            if thing["kind"] in kinds
        ]
        is_submitted = item["status"] == "SUBMITTED"
        if is_submitted or (unsubmitted and any(box for box, _ in shown)):
            source_id = normal(f"{item['dataset']}/{item['key']}")
            expected[source_id] = (
                item["encoded"],
                [pair for pair in shown if pair[0]],
                {tag.strip().lower() for tag in item["tags"]},
            )
    assume(any(unsubmitted or p["status"] == "SUBMITTED" for p, _ in truth))
    with tempfile.TemporaryDirectory() as folder:
        options = {"polygons_as_boxes": polygons, "include_unsubmitted": unsubmitted}
        if downloaded:
            path = suite_export.write_zip(Path(folder) / "labels.zip", labels)
            opened = Export([], path, **options)
        else:
            opened = suite_export.open_export(Path(folder), images, labels, **options)
        with opened:
            assert opened.class_names == names
            records = suite_export.read_items(opened)
            tags = {item.source_id: item.tags for item in opened.items}
    assert records.keys() == expected.keys()
    for source_id, (encoded, shown, its_tags) in expected.items():
        record = records[source_id]
        assert record.encoded == encoded
        assert (record.width, record.height) == (WIDTH, HEIGHT)
        assert record.labels == [label for _, label in shown]
        for ours, (box, _) in zip(record.boxes_px, shown, strict=True):
            assert ours == pytest.approx(box, abs=1e-9)
        assert tags[source_id] == its_tags


@pytest.mark.slow
def test_damaged_exports_end_in_whole_outputs_or_a_documented_error(run_script):
    process = run_script("tests/superbai/fuzz_export.py", 2000)
    assert process.returncode == 0, process.stdout + process.stderr[-2000:]
    result = json.loads(process.stdout.splitlines()[0])
    cases = result["cases"]
    assert sum(cases.values()) == 2000
    # Some are converted, some are refused, for many different reasons.
    assert cases["whole"] > 400 and len(cases) > 15, cases
