"""No form of the access key, and no signature, is left in a text, a log or an error."""

import base64
import html
import io
import json
import logging
import subprocess
import sys
from urllib.parse import quote

import pytest
from leaks import leaks
from project import REPOSITORY

from superbai.upload.redaction import Redactor

# Each way to write a text writes some of these characters in another form.
KEY = "k3y/0f+a=team%&'\"\\-0123456789"
TEAM = "우리 team"
redact = Redactor(TEAM, KEY)
PAIR = base64.b64encode(f"{TEAM}:{KEY}".encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY[3:14],
        repr(KEY),
        f"Invalid header value {f'{KEY}'.encode()!r}",
        repr(repr({"X-API-KEY": KEY})),
        json.dumps({"key": KEY}),
        json.dumps(json.dumps(KEY)),
        quote(KEY),
        quote(KEY, safe="").lower(),
        f"Basic {PAIR}",
        PAIR[:30] + PAIR[40:],
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(f"ab{KEY}cde".encode()).decode(),
        base64.urlsafe_b64encode(f"a{KEY}".encode()).decode(),
        quote(PAIR, safe=""),
        KEY.encode().hex(),
        KEY.encode().hex().upper(),
        html.escape(KEY),
        html.escape(KEY, quote=False),
        html.escape(KEY).replace("&#x27;", "&#39;"),
        "".join(f"&#{ord(c)};" for c in KEY),
        KEY.replace("&", "\\u0026"),
        quote(quote(KEY, safe=""), safe=""),
        base64.b32encode(KEY.encode()).decode(),
    ],
)
def test_all_forms_of_a_key_are_hidden(text):
    for around in ("{}", "Header {} is wrong", "a{}b"):
        clean = redact(around.format(text))
        assert not leaks(clean, KEY, TEAM) and "…" in clean
        for decode in (html.unescape, str.lower):
            assert not leaks(decode(clean), KEY, TEAM)
        pieces = [PAIR[i : i + 12] for i in range(len(PAIR) - 12)]
        # What is in front of the key in the pair is no secret.
        assert not any(piece in clean for piece in pieces[14:])


def test_what_is_no_secret_stays():
    text = "ds/사진?a=1.jpg: cannot look up its label (503); try again later."
    assert redact(text) == text
    assert Redactor("t", "abcd")("an abc of abcd, abcdef") == "an abc of …, …ef"


def test_names_stay_unless_they_hold_the_whole_key():
    name = f"ds/signature=abc&sig=1/{KEY[:10]}.jpg: no such image"
    assert redact.keep_names(name) == name != redact(name)
    for form in (KEY, html.escape(KEY), quote(KEY, safe=""), KEY.encode().hex()):
        assert redact.keep_names(f"ds/{form}.jpg") == "ds/….jpg"


def test_a_key_in_the_place_of_the_team():
    for pair in ((KEY, "team-a"), (KEY, "the-name-of-our-team-is-long-indeed")):
        clean = Redactor(*pair)
        for text in (KEY, repr(KEY), base64.b64encode(KEY.encode()).decode()):
            assert not leaks(clean(f"of '{text}'"), KEY)
    # The name of a team may be in that of a project or an image.
    assert Redactor("cars", KEY)("our-cars, 2024") == "our-cars, 2024"
    name = "the-team-of-2024/a.jpg"
    assert Redactor("the-team-of-2024", KEY).keep_names(name) == name


def test_addresses_lose_what_is_secret():
    text = "https://me:pass@host/a?X-Amz-Credential=AKIA1&X-Amz-Signature=5f&b=2 (x)"
    assert redact(text) == (
        "https://…@host/a?X-Amz-Credential=…&X-Amz-Signature=…&b=2 (x)"
    )
    assert redact.without_queries(text) == "https://…@host/a (x)"
    assert redact.without_queries("url: /info/1?expires=1&signature=2 (Caused") == (
        "url: /info/1 (Caused"
    )


def test_the_log_of_any_package(monkeypatch):
    before, stream = logging.getLogRecordFactory(), io.StringIO()
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr("threading.excepthook", None)
    logger = logging.getLogger("some.package")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        redact.install()
        logger.error("header %r of %s", KEY, "x?X-Goog-Signature=abc")
        logger.error("project '%s'", "a\nb")
        logger.error("a\n%s", "b\nc")
        try:
            raise ValueError(f"Invalid header value {KEY.encode()!r}")
        except ValueError:
            logger.exception("no answer")
    finally:
        logging.setLogRecordFactory(before)
        logger.removeHandler(handler)
    text = stream.getvalue()
    assert not leaks(text, KEY, TEAM) and "abc" not in text
    assert "project 'a\\nb'\n" in text and "a\nb\nc\n" in text
    assert "Traceback" in text and "ValueError: Invalid header value" in text


@pytest.mark.parametrize("place", ["main thread", "other thread", "step"])
def test_the_traceback_of_a_bug(place):
    program = {
        "main thread": "fail()",
        "other thread": "t = threading.Thread(target=fail); t.start(); t.join()",
        "step": "from valohai_step import runtime; runtime.run_step(fail)",
    }[place]
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, threading\nfrom superbai.upload.redaction import Redactor\n"
            "key = sys.argv[1]\nRedactor('team', key).install()\n"
            "def fail():\n"
            "    try:\n        {}[key]\n"
            "    except KeyError as error:\n"
            "        raise RuntimeError(f'http://x/a?sig={key!r}') from error\n"
            + program,
            KEY,
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    output = process.stdout + process.stderr
    assert not leaks(output, KEY) and "RuntimeError" in output, output
    assert "KeyError: '…" in output
    assert process.returncode == (0 if place == "other thread" else 1)
