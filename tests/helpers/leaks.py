"""The forms in which an access key may leak into what a program writes."""

import base64
import html
import json
from urllib.parse import quote, quote_plus


def forms(key, team="team"):
    """Returns the forms in which a key may appear, a dict from their names."""
    pair = f"{team}:{key}"
    return {
        "raw": key,
        "repr": repr(key)[1:-1],
        "bytes": repr(key.encode())[2:-1],
        "json": json.dumps(key)[1:-1],
        "url": quote(key, safe=""),
        "url, slashes kept": quote(key),
        "url, form": quote_plus(key),
        "base64": base64.b64encode(key.encode()).decode().rstrip("="),
        "base64 of the pair": base64.b64encode(pair.encode()).decode().rstrip("="),
        "base64 for addresses": base64.urlsafe_b64encode(key.encode()).decode()[:-2],
        "hexadecimal": key.encode().hex(),
        "base32": base64.b32encode(key.encode()).decode().rstrip("="),
        "web page": html.escape(key),
        "web page, quotes kept": html.escape(key, quote=False),
        "web page, numbers": "".join(f"&#{ord(c)};" for c in key),
        "url twice": quote(quote(key, safe=""), safe=""),
    }


def leaks(text, key, team="team"):
    """Returns the forms of a key that a text has, a list; parts count, too."""
    named = forms(key, team).items()
    found = [name for name, form in named if form.lower() in text.lower()]
    # Any ten characters of it that follow each other.
    parts = {key[start : start + 10] for start in range(len(key) - 9)}
    return found + sorted(part for part in parts if part in text)
