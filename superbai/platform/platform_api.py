"""The REST interface of Superb AI's new platform: requests, pages, errors and retries.

Written from the vendor's own Python client, superb-ai 0.4.0, which needs Python 3.12.
"""

import json
import random
import threading
import time

import requests
from absl import logging

from superbai.platform.platform_errors import (
    PlatformError,
    UnansweredError,
    describe_answer,
    describe_no_answer,
    is_temporary,
    is_unsent,
)
from superbai.upload.failures import retry_after
from superbai.upload.redaction import Redactor

# Seconds before each retry of a temporary failure that does not say when to return.
RETRY_SECONDS = (0.5, 1, 2, 4, 8, 16)
# Retries of a request that no connection can be made for: more of them rarely help.
FEW_RETRIES = 3
# The longest wait that the platform may ask for.
MAX_WAIT_SECONDS = 300
# Shorter waits are not logged.
LOGGED_SECONDS = 1.5
# Seconds to connect, and to wait for the next bytes.
TIMEOUT = (10, 60)
# Rows of a page; the platform gives at most 100 of most lists.
PAGE_ROWS = 100


class PlatformApi:
    """The interface of one workspace; its methods may be called in several threads.

    Attributes:
        redact: the `redaction.Redactor` of the key.
        should_stop: function without arguments; once it returns true, failed requests
            are not repeated.
    """

    def __init__(self, credentials):
        """Stores the `platform_credentials.Credentials`; sends nothing."""
        self._key = credentials.key
        self.redact = Redactor(credentials.tenant, credentials.key)
        self._root = f"{credentials.base_url}/tenants/{credentials.tenant}"
        self._local = threading.local()
        self.should_stop = lambda: False

    def get(self, path, action, **params):
        """Returns the content of an answer, parsed.

        Args:
            path: below the workspace, with a slash in front.
            action: start of the error message: what failed.
            **params: of the query; a list is repeated.

        Raises:
            PlatformError: the platform failed or refuses.
            RefusedError: it refuses the key.
        """
        response = self._request("GET", self._root + path, action, params=params)
        return self._parse(response, action)

    def post(self, path, make_body, action, *, is_repeatable):
        """Sends an object and returns the content of the answer, parsed.

        Args:
            path, action: see `get`.
            make_body: function that returns a dict. It is called before each try, as
                a lot may change while a try is waited for; if it returns None, nothing
                is sent, and None is returned.
            is_repeatable: whether sending it twice does no harm.

        Raises:
            UnansweredError: it is not repeatable, and its answer was lost.
            PlatformError, RefusedError: see `get`.
        """
        response = self._request(
            "POST",
            self._root + path,
            action,
            is_repeatable=is_repeatable,
            make_body=make_body,
        )
        return None if response is None else self._parse(response, action)

    def pages(self, path, action, *, limit=PAGE_ROWS, **params):
        """Yields the items of all pages of a list; see `get`."""
        seen = set()
        while True:
            page = self.get(path, action, limit=limit, **params)
            items = page.get("items") if isinstance(page, dict) else None
            if not isinstance(items, list) or not all(
                isinstance(i, dict) for i in items
            ):
                raise PlatformError(f"{action}: expected a list of objects, got none.")
            yield from items
            cursor = page.get("next_cursor")
            if cursor is None:
                return
            if cursor in seen:
                raise PlatformError(f"{action}: the platform repeats a page.")
            seen.add(cursor)
            params["cursor"] = cursor

    def fetch(self, address, action):
        """Returns the bytes behind a signed address.

        The key is not sent: the address holds its own permission, and its host is
        another one.

        Raises:
            PlatformError: they cannot be fetched; the message has no address.
        """
        return self._request("GET", address, action, is_signed=True).content

    @property
    def _session(self):
        """The session of this thread."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        return self._local.session

    def _request(
        self,
        method,
        address,
        action,
        *,
        is_repeatable=True,
        is_signed=False,
        make_body=None,
        **options,
    ):
        """Returns a successful answer, of the second or a later try if necessary.

        It is None if `make_body` returns None.
        """
        for number, wait in enumerate((*RETRY_SECONDS, None)):
            response = None
            if make_body:
                options["json"] = make_body()
                if options["json"] is None:
                    return None
            try:
                response = self._session.request(
                    method,
                    address,
                    # A function: `requests` prefers a password in ~/.netrc else.
                    auth=_no_credentials if is_signed else self._authorise,
                    timeout=TIMEOUT,
                    # Nobody else may get the key.
                    allow_redirects=is_signed,
                    **options,
                )
                _check_length(response)
            except requests.RequestException as error:
                failure = describe_no_answer(
                    error, action, address, is_signed=is_signed
                )
                may_be_done = not is_unsent(error)
                can_retry = not isinstance(error, requests.exceptions.SSLError)
                can_retry = can_retry and (may_be_done or number < FEW_RETRIES)
            else:
                if response.ok and not response.is_redirect:
                    return response
                failure = describe_answer(
                    response, action, self.redact, is_signed=is_signed
                )
                can_retry = is_temporary(response.status_code, failure)
                may_be_done = response.status_code not in (429, 503)
            if can_retry and may_be_done and not is_repeatable:
                raise UnansweredError(str(failure))
            if not can_retry or wait is None or self.should_stop():
                raise failure
            self._wait(response, wait, failure)
        raise AssertionError("the last try returns or raises")

    def _authorise(self, request):
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _wait(self, response, wait, failure):
        """Waits before a retry, as long as the platform asks for.

        Raises:
            PlatformError: it asks for longer than `MAX_WAIT_SECONDS`.
        """
        seconds = retry_after(response)
        if seconds is None:
            # A random wait, so that the threads do not all retry at the same time.
            seconds = wait * random.uniform(1, 1.5)
        if seconds > MAX_WAIT_SECONDS:
            asked = f"{seconds:.0f} s" if seconds < 86400 else "more than a day"
            raise type(failure)(
                f"{str(failure).rstrip('.')}; it asks to wait {asked}, so run again "
                "then.",
                failure.status,
                failure.code,
            )
        # Not all at once, even if the platform asks for no wait.
        seconds = max(seconds, wait / 5)
        if seconds >= LOGGED_SECONDS:
            logging.info("%s Trying again in %.0f s", failure, seconds)
        end = time.monotonic() + seconds
        while not self.should_stop() and time.monotonic() < end:
            time.sleep(min(0.1, seconds))

    def _parse(self, response, action):
        try:
            content = response.json()
            if b"\\ud" in response.content.lower():
                # Half of a character, as of a name that was cut, fits into no file.
                text = json.dumps(content, ensure_ascii=False)
                pairs = text.encode("utf-16", "surrogatepass")
                content = json.loads(pairs.decode("utf-16", "replace"))
            return content
        except ValueError:
            raise PlatformError(
                f"{action}: expected JSON, got something else; is SUPERB_AI_BASE_URL "
                "right, or does a proxy answer?"
            ) from None


def _no_credentials(request):
    return request


def _check_length(response):
    """Raises a `ConnectionError` if an answer is shorter than it says."""
    length = response.headers.get("Content-Length", "")
    is_encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    if length.isdigit() and not is_encoded and len(response.content) < int(length):
        raise requests.ConnectionError("incomplete")
