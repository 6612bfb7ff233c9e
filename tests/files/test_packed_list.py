"""Lists that are held as compressed bytes, against lists of Python."""

import random

import pytest

from yolov3_tf2.files.packed_list import PackedList


@pytest.mark.parametrize("number", [0, 1, 1023, 1024, 1025, 5000])
def test_a_packed_list_reads_as_a_list(number):
    values = [(f"a/{n}.jpg", n) for n in range(number)]
    packed = PackedList(iter(values))
    assert len(packed) == number
    assert list(packed) == values
    chance = random.Random(number)
    for _ in range(20 * bool(number)):
        index = chance.randrange(-number, number)
        assert packed[index] == values[index]
    for index in (number, -number - 1):
        with pytest.raises(IndexError):
            packed[index]


def test_a_slice_of_a_slice():
    values, chance = list(range(3000)), random.Random(0)
    packed = PackedList(values)
    for _ in range(50):
        first, second = (
            slice(
                *chance.sample(range(-3000, 3000), 2), chance.choice([-700, -1, 1, 9])
            )
            for _ in range(2)
        )
        assert list(packed[first][second]) == values[first][second]
    assert list(packed[:]) == values
