"""The checks of values from JSON and XML: what is accepted, and what errors say."""

import pytest

from yolov3_tf2.errors import InputError
from yolov3_tf2.files import json_values


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (json_values.as_dict, [], r"an object, got \[\]"),
        (json_values.as_dict, None, "an object, got null"),
        (json_values.as_list, {}, r"a list, got \{\}"),
        (json_values.as_list, None, "a list, got null"),
        (json_values.as_number, "1", "a finite number, got '1'"),
        (json_values.as_number, True, "a finite number, got True"),
        (json_values.as_number, float("nan"), "a finite number, got nan"),
        (json_values.as_number, 10**400, "a finite number, got 1000"),
        (json_values.text_as_number, "1_0", "a finite number, got '1_0'"),
        (json_values.text_as_number, "inf", "a finite number, got 'inf'"),
        (json_values.as_text, " ", "one line of text, got ' '"),
        (json_values.as_text, "a\u2028b", "one line of text, got 'a"),
        (json_values.as_text, "\ud800", "one line of text, got "),
        (json_values.as_text, 1, "one line of text, got 1"),
        (json_values.parse_json, b"{", "malformed JSON: .*incomplete"),
        (json_values.parse_json, b"\xff", "expected JSON in UTF-8, got byte 0xff at 0"),
    ],
)
def test_a_value_that_is_refused(check, value, message):
    with pytest.raises(InputError, match=f"^a.json: id: .*{message}"):
        check(value, "a.json: id")


def test_values_that_are_accepted():
    assert json_values.parse_json(b'\xef\xbb\xbf{"a": 1}', "a.json") == {"a": 1}
    assert json_values.as_dict(None, "a", optional=True) == {}
    assert json_values.as_list(None, "a", optional=True) == []
    assert json_values.text_as_number(" +1.5e1\n", "a") == 15
    number = json_values.as_number(3, "a")
    assert number == 3 and type(number) is float


def test_a_member_of_a_list_is_named_by_its_number():
    with pytest.raises(InputError, match="^a.json object 2: expected an object, got 5"):
        json_values.as_dicts([{}, 5], "a.json", "object")
