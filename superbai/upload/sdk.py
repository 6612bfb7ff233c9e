"""The SDK of the Superb AI Suite: credentials, errors and retries.

The SDK is spb-cli or superb-ai-label, whichever is installed; both have the same calls.
Neither checks every answer, times out, retries every temporary failure, or says which
image failed. `Sdk.call` does.
"""

import logging
import os
import random
import threading
import time
from importlib import import_module
from importlib.util import find_spec
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from superbai.upload import failures
from superbai.upload.credentials import read_credentials
from superbai.upload.failures import (  # noqa: F401  The errors of `Sdk.call`.
    ConflictError,
    NotFoundError,
    RedirectError,
    RefusedError,
    SuiteError,
)
from superbai.upload.redaction import Redactor
from yolov3_tf2.errors import InputError

PACKAGES = ("spb", "spb_label")
# Seconds before each retry of a temporary failure.
RETRY_SECONDS = (0.5, 1, 2, 4, 8, 16)
# Retries of a failure that is probably permanent, such as an expired address.
FEW_RETRIES = 2
# The longest that the Suite may ask to wait before the next try.
MAX_WAIT_SECONDS = 300
# Seconds to connect, and to wait for the next bytes.
TIMEOUT = (10, 60)


class Sdk:
    """The installed SDK, with the credentials of this machine.

    Attributes:
        package: name of the SDK's package, `spb` or `spb_label`.
        module: the imported package.
        team: name of the team.
        credentials: the `credentials.Credentials`.
        redact: the `Redactor` of the key; it cleans the log and tracebacks, too.
        stopped: a `threading.Event`; once it is set, failed calls are not repeated.
    """

    def __init__(self):
        """Reads the credentials and imports the SDK.

        Raises:
            InputError: the credentials or the SDK are missing or cannot be used.
        """
        self.stopped = threading.Event()
        self.credentials = read_credentials()
        self.team = self.credentials.team
        self.redact = Redactor(self.team, self.credentials.key)
        self.redact.install()
        self.package = next((name for name in PACKAGES if find_spec(name)), None)
        if self.package is None:
            raise InputError(
                "the SDK of the Suite is not installed; run pip install -r "
                "requirements/suite.txt in a separate environment, or pip install "
                "superb-ai-label in this one."
            )
        # Its messages about retries contain signed addresses, which are secret.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        # The SDK opens a client for Amazon S3, unused here, which fails at a wrong one.
        for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
            os.environ.pop(name, None)
        # The SDK looks for credentials already when it is imported, and its errors show
        # what it finds.
        os.environ["SPB_TEAM_NAME"] = self.team
        os.environ["SPB_ACCESS_KEY"] = self.credentials.key
        self.module = import_module(self.package)
        self._errors = import_module(f"{self.package}.exceptions").CustomBaseException
        import_module(f"{self.package}.utils.utils").HTTPAdapter = _Adapter
        # When the Suite asked to wait until, by `time.monotonic`.
        self._resume_at = 0.0

    def client(self, project):
        """Returns the SDK's client for a project."""
        return import_module(f"{self.package}.sdk").Client(
            project_name=project,
            team_name=self.team,
            access_key=self.credentials.key,
        )

    def call(self, action, function, advice="", *, finish=False):
        """Calls a function that uses the SDK; retries it after temporary failures.

        Args:
            action: first part of the error message.
            function: called without arguments.
            advice: last part of the error message, where there is more to say.
            finish: try as often as usual after `stopped` is set.

        Returns:
            The result of the function.

        Raises:
            RefusedError: the Suite refuses the credentials.
            SuiteError: the Suite or its SDK failed.
            InputError: raised by the function.
        """
        sleep, num_retries = time.sleep if finish else self.stopped.wait, 0
        while True:
            self._wait_for_all(sleep)
            _last.answer = None
            try:
                return function()
            except InputError:
                raise
            except Exception as error:
                if not self._is_failure(error):
                    raise
                failure = failures.read_failure(error, _last.answer, self.redact)
            is_stopped = self.stopped.is_set() and not finish
            if is_stopped or num_retries >= _max_retries(failure):
                # Not from the error, which contains signed, secret addresses.
                raise self._readable_error(failure, action, advice)
            if failure.wait:
                self._resume_at = max(self._resume_at, time.monotonic() + failure.wait)
            # A random wait, so that the threads do not all retry at the same time.
            sleep(RETRY_SECONDS[num_retries] * random.uniform(1, 1.5))
            num_retries += 1

    def has_answered_null(self, name):
        """Whether the last answer in this thread has null for what was asked for."""
        try:
            return _last.answer.json()["data"][name] is None
        except (AttributeError, *failures.UNEXPECTED):
            return False

    def _wait_for_all(self, sleep):
        """Waits as long as the Suite has asked any thread to."""
        seconds = self._resume_at - time.monotonic()
        if seconds > 0:
            sleep(seconds)

    def _readable_error(self, failure, action, advice):
        """Returns the exception to raise for a failure; see `call`."""
        # Cleaned before it is cut: a part of a key would not be recognised.
        text = self.redact.without_queries(failure.text)[:400]
        if failure.error is RefusedError:
            advice = f"they are from {self.credentials.source}"
        parts = [f"{action}: {text}", advice]
        if failure.wait and failure.wait > MAX_WAIT_SECONDS:
            parts.append("run the same command again then")
        elif not advice and failure.retries != failures.NEVER:
            parts.append("try again later")
        return failure.error("; ".join(filter(None, parts)) + ".")

    def _is_failure(self, error):
        """Tells whether the SDK or a request failed, rather than this program."""
        known = (self._errors, requests.RequestException, *failures.UNEXPECTED)
        # The SDK's models raise plain Exception, its part phy_credit a subclass.
        is_bare = type(error) is Exception
        return (
            isinstance(error, known)
            or is_bare
            or type(error).__module__.startswith("phy_credit")
        )


class _LastAnswer(threading.local):
    """The `requests.Response` that came last in each thread."""

    answer = None


_last = _LastAnswer()


class _Adapter(HTTPAdapter):
    """Sends the SDK's requests with a timeout, and remembers the answers.

    Without a timeout, a dead connection would block the run forever. The SDK's own
    retries are switched off, as `Sdk.call` retries: those of urllib3 wait as long as
    the Suite asks them to, however long that is.
    """

    def __init__(self, max_retries):
        super().__init__()

    def send(self, request, timeout=None, **options):
        answer = super().send(request, timeout=timeout or TIMEOUT, **options)
        if answer.is_redirect and "X-API-KEY" in request.headers:
            # The key would be sent to whatever address this is.
            target = urlsplit(answer.headers["location"]).netloc
            raise RedirectError(
                f"{urlsplit(request.url).netloc} leads to {target or 'another page'} "
                f"({answer.status_code}); is that the login page of a network or a "
                "proxy, or is SPB_APP_API_ENDPOINT set to a wrong address?",
                request=request,
            )
        _last.answer = answer
        return answer


def _max_retries(failure):
    """Returns how often to retry a call after a `failures.Failure`."""
    if failure.wait and failure.wait > MAX_WAIT_SECONDS:
        return 0
    few = min(FEW_RETRIES, len(RETRY_SECONDS))
    return {
        failures.NEVER: 0,
        failures.FEW_TIMES: few,
        failures.ALL_TIMES: len(RETRY_SECONDS),
    }[failure.retries]
