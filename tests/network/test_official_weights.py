"""The table of the official weights: their sizes, and the local file's checksum."""

import pytest
from project import SHARED

from yolov3_tf2.network import model as network
from yolov3_tf2.network.official_weights import OFFICIAL, find_official
from yolov3_tf2.network.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_sizes_are_those_of_the_networks(name):
    model = network.build_model(VARIANTS[name], 80, random=False)
    assert OFFICIAL[name].num_bytes == 20 + 4 * model.count_params()


@pytest.mark.parametrize("name", VARIANTS)
def test_there_is_more_than_one_address(name):
    assert len({url.split("/")[2] for url in OFFICIAL[name].urls}) > 1
    assert all(url.endswith(f"/{name}.weights") for url in OFFICIAL[name].urls)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the official weights are not here")
def test_the_official_file_is_known(tmp_path):
    path = SHARED / "weights" / "yolov3-tiny.weights"
    assert find_official(path) == "yolov3-tiny"
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "changed.weights").write_bytes(changed)
    assert find_official(tmp_path / "changed.weights") is None


def test_another_file_is_not(tmp_path):
    (tmp_path / "other.weights").write_bytes(bytes(100))
    assert find_official(tmp_path / "other.weights") is None
