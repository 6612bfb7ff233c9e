"""Keeps secrets out of all that a program writes.

`Redactor` replaces the access key in each form in which a library may show it, and what
is secret in an address: signatures and the passwords of proxies.
"""

import base64
import json
import logging
import re
import sys
import threading
import traceback
from urllib.parse import quote, quote_plus

# Stands for a secret.
HIDDEN = "…"
# Parts of a key from this many characters on are hidden, too.
_PART = 8
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
        self._parts = {}
        for form in _forms(team, key):
            length = min(_PART, len(form))
            parts = {form[i : i + length] for i in range(len(form) - length + 1)}
            self._parts.setdefault(length, set()).update(parts)

    def __call__(self, text):
        """Returns a text with `HIDDEN` in place of each secret."""
        hidden = bytearray(len(text))
        for length, parts in self._parts.items():
            for start in range(len(text) - length + 1):
                if text[start : start + length] in parts:
                    hidden[start : start + length] = b"\1" * length
        pieces, at = [], 0
        for run in re.finditer(b"\1+", hidden):
            pieces += [text[at : run.start()], HIDDEN]
            at = run.end()
        text = "".join([*pieces, text[at:]])
        return _USER_INFO.sub(f"{HIDDEN}@", _SIGNATURE.sub(rf"\1={HIDDEN}", text))

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
            record.msg, record.args = self(record.getMessage()), None
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


def _forms(team, key):
    """Returns the texts that a key may appear as, a set."""
    forms = {key, repr(key)[1:-1], repr(key.encode())[2:-1], json.dumps(key)[1:-1]}
    forms |= {repr(form)[1:-1] for form in forms}  # An error inside an error.
    forms |= {quote(key), quote(key, safe=""), quote_plus(key), key.encode().hex()}
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
