"""No form of the access key, and no signature, is left in a text, a log or an error."""

import base64
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
    ],
)
def test_all_forms_of_a_key_are_hidden(text):
    for around in ("{}", "Header {} is wrong", "a{}b"):
        clean = redact(around.format(text))
        assert not leaks(clean, KEY, TEAM) and "…" in clean
        pieces = [PAIR[i : i + 12] for i in range(len(PAIR) - 12)]
        # What is in front of the key in the pair is no secret.
        assert not any(piece in clean for piece in pieces[14:])


def test_what_is_no_secret_stays():
    text = "ds/사진?a=1.jpg: cannot look up its label (503); try again later."
    assert redact(text) == text
    assert Redactor("t", "abcd")("an abc of abcd, abcdef") == "an abc of …, …ef"


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
        try:
            raise ValueError(f"Invalid header value {KEY.encode()!r}")
        except ValueError:
            logger.exception("no answer")
    finally:
        logging.setLogRecordFactory(before)
        logger.removeHandler(handler)
    text = stream.getvalue()
    assert not leaks(text, KEY, TEAM) and "abc" not in text
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
