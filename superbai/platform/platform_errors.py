"""The errors of Superb AI's new platform: what an answer or its absence means."""

from contextlib import suppress
from urllib.parse import urlsplit

import requests

from superbai.upload.failures import RefusedError
from yolov3_tf2.errors import InputError, shorten

_TEMPORARY = (408, 429, 500, 502, 503, 504)
# Limits that a few seconds do not lift, although their status is 429.
_CAPS = ("JOB_PER_TENANT_CAP", "RESOURCE_LIMIT_EXCEEDED")
_NO_ADDRESS = ("NameResolution", "getaddrinfo", "Name or serv")
_MEANINGS = {
    401: "the platform does not accept the key; check SUPERB_AI_API_KEY, of which each "
    "user has one at a time, and SUPERB_AI_TENANT",
    403: "the user of the key may not do this; sending boxes needs a manager of the "
    "project",
    404: "the platform does not have it",
    409: "its state does not allow this",
    410: "it is gone",
    413: "too much in one request",
    422: "the platform refuses what was sent",
    429: "too many requests; try again later",
}


class PlatformError(InputError):
    """The platform failed or refused a request.

    Attributes:
        status: of its answer; 0 without one.
        code: its name for the error; empty without one.
    """

    def __init__(self, message, status=0, code=""):
        super().__init__(message)
        self.status, self.code = status, code


class UnansweredError(PlatformError):
    """A request that must not be repeated blindly: it may have been executed."""


def describe_no_answer(error, action, address, *, is_signed):
    """Returns the error for a request without an answer.

    Args:
        error: an exception of `requests`.
        action: start of the message: what failed.
        address: of the request; the message has its host only, as the rest of a signed
            one is secret.
        is_signed: whether it is one of the storage.
    """
    host = urlsplit(address).hostname
    reasons = {
        requests.exceptions.ProxyError: "the proxy refuses the connection",
        requests.exceptions.SSLError: "the certificate is not accepted; does a "
        "proxy decrypt connections, or is the clock wrong?",
        requests.exceptions.ConnectTimeout: "no connection in time",
        requests.Timeout: "no answer in time",
        requests.ConnectionError: "no connection, or it was cut off",
    }
    reason = next((t for c, t in reasons.items() if isinstance(error, c)), "")
    text, is_proxy = repr(error), isinstance(error, requests.exceptions.ProxyError)
    if "Connection refused" in text and not is_proxy:
        reason = "the connection is refused; is a firewall in the way"
        reason += "?" if is_signed else ", or is SUPERB_AI_BASE_URL a wrong address?"
    elif any(name in text for name in _NO_ADDRESS) and not is_proxy:
        reason = "the name of the host cannot be resolved; is this machine offline, "
        reason += "or behind a proxy that HTTPS_PROXY must name?"
    # Not the text of the error, which may contain a signed, secret address.
    reason = reason or f"no complete answer, {type(error).__name__}"
    end = "" if reason.endswith("?") else "."
    return PlatformError(f"{action}: {host}: {reason}{end}")


def describe_answer(response, action, redact, *, is_signed):
    """Returns the error for an answer that is a failure.

    Args:
        response: the answer of `requests`.
        action: start of the message: what failed.
        redact: function that returns a text without the API key.
        is_signed: whether it is the answer of the storage to a signed address.
    """
    status, content = response.status_code, None
    if is_signed:  # The storage answers in XML, with parts of the address.
        hint = ", as if the address had expired" if status == 403 else ""
        return PlatformError(f"{action}: the storage answers {status}{hint}.", status)
    with suppress(ValueError):
        content = response.json()
    code, text = _explain(content)
    meaning = _MEANINGS.get(status, "the platform failed")
    if status == 404 and code.startswith("TENANT"):
        meaning = "the platform has no such workspace; check SUPERB_AI_TENANT"
    if response.is_redirect:
        meaning = "got a redirect; is SUPERB_AI_BASE_URL right?"
    details = " ".join(filter(None, (str(status), code, text)))
    message = f"{action}: {meaning} ({shorten(redact(details))})."
    if status in (401, 403):
        return RefusedError(message)
    return PlatformError(message, status, code)


def is_unsent(error):
    """Tells whether a request has certainly not reached the platform."""
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.ProxyError):
        return True
    return "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error)


def is_temporary(status, failure):
    return status in _TEMPORARY and getattr(failure, "code", "") not in _CAPS


def _explain(content):
    """Returns the code and the text of an error, from its parsed content."""
    if not isinstance(content, dict):
        return "", ""
    error = content.get("error")
    if not isinstance(error, dict):
        return "", _list_fields(content.get("detail"))
    details = error.get("details")
    if isinstance(details, dict):
        details = details.get("errors")
    texts = (error.get("message"), error.get("hint"), _list_fields(details))
    request_id = error.get("request_id")
    parts = [str(text) for text in texts if text]
    parts += [f"request {request_id}"] if request_id else []
    return str(error.get("code") or ""), "; ".join(parts)


def _list_fields(errors):
    """Returns which fields of a request are wrong, and why; empty if unknown."""
    if not isinstance(errors, list):
        return ""
    texts = []
    for error in errors[:5]:
        if isinstance(error, dict):
            place = error.get("loc") or error.get("id") or error.get("index") or ""
            if isinstance(place, list):
                place = ".".join(str(part) for part in place if part != "body")
            reason = error.get("msg") or error.get("message") or error.get("type")
            texts.append(f"{place}: {reason}")
    return ", ".join(texts)
