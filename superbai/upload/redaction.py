"""Keeps secrets out of all that a program writes.

`Redactor` replaces the access key in each form in which a library may show it, and what
is secret in an address: signatures and the passwords of proxies.
"""

import base64
import html
import json
import logging
import re
import sys
import threading
import traceback
from urllib.parse import quote, quote_plus

from yolov3_tf2.errors import one_line

# Stands for a secret.
HIDDEN = "…"
# Parts of a key from this many characters on are hidden in texts of others, too.
_PART = 8
# A team's name of this length that looks like a key may be one: the two get swapped.
_LIKE_KEY = 16
# Names of the loggers whose messages this project makes; see `Redactor.keep_names`.
_OWN_LOGGERS = ("absl",)
_SIGNATURE = re.compile(
    r"(?i)\b((?:x-(?:amz|goog)-)?(?:signature|credential|security-token)"
    r"|awsaccesskeyid|googleaccessid|key-pair-id|sig)=[^\s&'\"<>)]+"
)
_USER_INFO = re.compile(r"(?<=://)[^/\s'\"@]+@")
_QUERY = re.compile(r"(?<=[^\s?])\?[^\s'\"<>)]*=[^\s'\"<>)]*")


class Redactor:
    """Returns texts without secrets; call it with one.

    Example:
        >>> Redactor("team", "k3y-of-a-team")("{'X-API-KEY': 'k3y-of-a-team'}")
        "{'X-API-KEY': '…'}"
    """

    def __init__(self, team, key):
        """Stores the forms of a key.

        Args:
            team, key: the credentials, strings.
        """
        self._parts, self._whole = {}, {}
        secrets = {key, team} if _may_be_key(team, key) else {key}
        for secret in secrets:
            for form in _forms(team, secret):
                # Of escapes, a part of this many characters of the key is longer.
                length = min(_PART * max(1, len(form) // len(secret)), len(form))
                parts = {form[i : i + length] for i in range(len(form) - length + 1)}
                self._parts.setdefault(length, set()).update(parts)
        # Not the team, which no message of this project shows, but a name may hold.
        for form in _forms(team, key):
            self._whole.setdefault(len(form), set()).add(form)

    def __call__(self, text):
        """Returns a text of others with `HIDDEN` in place of each secret."""
        text = _hide(text, self._parts)
        return _USER_INFO.sub(f"{HIDDEN}@", _SIGNATURE.sub(rf"\1={HIDDEN}", text))

    def keep_names(self, text):
        """Returns a text of this project without the key.

        What others have said in it is clean already. Names of images stay as they are,
        even if they look like a signature or share some characters with the key.
        """
        return _hide(text, self._whole)

    def without_queries(self, text):
        """Returns a text without secrets and without the queries of all addresses.

        For the errors of libraries. Names of files may look like a query.
        """
        return self(_QUERY.sub("", text))

    def install(self):
        """Hides the secrets in the log of all packages, and in tracebacks."""
        make_record = logging.getLogRecordFactory()

        def make_clean_record(*arguments, **options):
            record = make_record(*arguments, **options)
            clean = self.keep_names if record.name in _OWN_LOGGERS else self
            message, has_lines = clean(record.getMessage()), "\n" in str(record.msg)
            # Line ends of the arguments do not count as those of the format.
            record.msg = message if has_lines else one_line(message)
            record.args = None
            if record.exc_info and record.exc_info[0]:
                record.exc_text = self._format(*record.exc_info).rstrip()
            return record

        def print_traceback(*error):
            sys.stderr.write(self._format(*error))

        logging.setLogRecordFactory(make_clean_record)
        sys.excepthook = print_traceback
        threading.excepthook = lambda arguments: print_traceback(*arguments[:3])

    def _format(self, *error):
        return self.without_queries("".join(traceback.format_exception(*error)))


def _hide(text, parts_by_length):
    """Returns a text with `HIDDEN` in place of each of some parts.

    Args:
        text: a string.
        parts_by_length: dict from a length to the set of the parts that have it.
    """
    hidden = bytearray(len(text))
    for length, parts in parts_by_length.items():
        for start in range(len(text) - length + 1):
            if text[start : start + length] in parts:
                hidden[start : start + length] = b"\1" * length
    pieces, at = [], 0
    for run in re.finditer(b"\1+", hidden):
        pieces += [text[at : run.start()], HIDDEN]
        at = run.end()
    return "".join([*pieces, text[at:]])


def _may_be_key(team, key):
    """Whether the name of a team looks like a key, so that the two may be swapped."""
    is_text = re.fullmatch("[!-~]+", team) and len(team) >= _PART
    has_digit = re.search(r"\d", team) and len(team) >= _LIKE_KEY
    return bool(is_text and (has_digit or len(team) > len(key)))


def _forms(team, key):
    """Returns the texts that a key may appear as, a set."""
    forms = {key, repr(key)[1:-1], repr(key.encode())[2:-1], json.dumps(key)[1:-1]}
    forms |= {repr(form)[1:-1] for form in forms}  # An error inside an error.
    quoted = {quote(key), quote(key, safe=""), quote_plus(key)}
    forms |= quoted | {quote(form, safe="") for form in quoted}
    forms |= {key.encode().hex(), key.encode().hex().upper()}
    forms |= _html_forms(key)
    forms.add(base64.b32encode(key.encode()).decode().rstrip("="))
    # In base64, the letters depend on where among three bytes a text begins, and those
    # at its ends on its neighbours.
    encoded = {base64.b64encode(f"{team}:{key}".encode()).decode()}
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + key.encode()).decode()
        size = offset + len(key.encode())
        encoded.add(text[-(-offset * 8 // 6) : size * 8 // 6])
    encoded |= {text.translate(str.maketrans("+/", "-_")) for text in encoded}
    forms |= encoded | {quote(text, safe="") for text in encoded}
    # Some libraries write the digits of an escape in small letters.
    forms |= {
        re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), form) for form in forms
    }
    return forms - {""}


def _html_forms(key):
    """Returns what a web page, or JSON that is safe inside one, makes of a key."""
    numbers = ("".join(form % ord(c) for c in key) for form in ("&#%d;", "&#x%x;"))
    escaped = html.escape(key)
    in_json = re.sub("[&<>']", lambda c: f"\\u{ord(c[0]):04x}", json.dumps(key)[1:-1])
    return {
        *numbers,
        html.escape(key, quote=False),
        escaped,
        escaped.replace("&#x27;", "&#39;"),
        escaped.replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        in_json,
        in_json.replace("\\u", "\\\\u"),
    }
