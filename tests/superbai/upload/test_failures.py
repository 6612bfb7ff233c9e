"""What failures mean in words, and whether the next try may succeed."""

import functools
import json
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from leaks import forms, leaks

from superbai.upload import failures
from superbai.upload.redaction import Redactor

ADDRESS = "http://127.0.0.1:1/graphql"


@pytest.fixture
def failing_server():
    """Answers all requests with a status, headers and a body that the test sets."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(server.status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(server.body)))
            self.end_headers()
            self.wfile.write(server.body)

        do_POST = do_CONNECT = do_GET

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.status, server.headers, server.body = 200, {}, b""
    server.address = f"127.0.0.1:{server.server_address[1]}"
    serve = functools.partial(server.serve_forever, poll_interval=0.02)
    threading.Thread(target=serve, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fail(url, read=lambda answer: answer.raise_for_status(), **options):
    """Requests an address; returns the `Failure` that this leads to."""
    session = requests.Session()
    session.trust_env = False  # The proxies of this machine.
    answer = None
    with pytest.raises(Exception) as caught:
        answer = session.post(url, timeout=5, **options)
        read(answer)
    return failures.read_failure(caught.value, answer)


@pytest.mark.parametrize("start", [46, 55, 60, 193, 199])
def test_a_key_is_hidden_before_a_message_is_cut(failing_server, start):
    key = "k3y-0f-a-team-0123456789"
    read = functools.partial(failures.read_failure, redact=Redactor("team", key))
    failing_server.body = b"x" * start + key.encode()
    answer = requests.post(f"http://{failing_server.address}")
    with pytest.raises(ValueError) as caught:
        answer.json()
    assert "k3y" not in read(caught.value, answer).text
    message = "y" * start + key
    failing_server.body = json.dumps({"errors": [{"message": message}]}).encode()
    answer = requests.post(f"http://{failing_server.address}")
    text = read(KeyError("extensions"), answer).text
    assert "yyy" in text and "k" not in text.split("yyy")[-1]


def test_an_answer_that_shows_the_key(failing_server):
    key = "k3y/0f+a=team%&'\"\\<>-0123456789"
    read = functools.partial(failures.read_failure, redact=Redactor("team", key))
    shown = forms(key)
    shown["hexadecimal, large"] = shown["hexadecimal"].upper()
    for name, form in shown.items():
        failing_server.body = f"<html>{form}".encode()
        answer = requests.post(f"http://{failing_server.address}")
        with pytest.raises(ValueError) as caught:
            answer.json()
        text = read(caught.value, answer).text
        assert "'<html>…" in text and not leaks(text, key), name
        message = {"errors": [{"message": f"bad header {form}"}]}
        failing_server.body = json.dumps(message).encode()
        answer = requests.post(f"http://{failing_server.address}")
        text = read(KeyError("extensions"), answer).text
        assert "bad header …" in text and not leaks(text, key), name


def test_no_connection():
    failure = fail(ADDRESS)
    assert failure.text.startswith("the connection to 127.0.0.1:1 is refused; is a")
    assert failure.retries == failures.FEW_TIMES
    failure = fail("http://nowhere.invalid/graphql")
    assert failure.text.startswith("the name nowhere.invalid cannot be resolved; is")
    failure = fail("nowhere/graphql")
    assert failure.text.startswith("SPB_APP_API_ENDPOINT is not an address (MissingSch")
    assert failure.retries == failures.NEVER


def test_certificates(failing_server):
    failure = fail(f"https://{failing_server.address}/")
    assert "the certificate of 127.0.0.1:" in failure.text
    assert "set REQUESTS_CA_BUNDLE" in failure.text
    assert failure.retries == failures.NEVER


def test_proxies(failing_server):
    closed = {"http": "http://me:secret@127.0.0.1:1"}
    failure = fail("http://api.example/graphql", proxies=closed)
    assert failure.text.startswith("the proxy on the way to api.example cannot be used")
    assert "check HTTPS_PROXY" in failure.text and "secret" not in failure.text
    failing_server.status = 407
    for scheme in ("http", "https"):
        failure = fail(
            f"{scheme}://api.example/graphql",
            proxies={scheme: f"http://{failing_server.address}"},
        )
        assert failure.text == (
            "the proxy on the way to api.example asks for a login (407); put the name "
            "and the password into HTTPS_PROXY, or the host into NO_PROXY"
        )
        assert failure.retries == failures.NEVER
    failure = fail("http://api.example/", proxies={"http": "http:///x"})
    assert failure.text == "HTTP_PROXY or HTTPS_PROXY is not an address"


@pytest.mark.parametrize(
    ("status", "text", "retries"),
    [
        (404, "refuses it (404 Client Error: Not Found", failures.FEW_TIMES),
        (408, "fails at the moment (408 Client Error", failures.ALL_TIMES),
        (503, "fails at the moment (503 Server Error", failures.ALL_TIMES),
    ],
)
def test_statuses(failing_server, status, text, retries):
    failing_server.status = status
    failure = fail(f"http://{failing_server.address}/graphql")
    assert text in failure.text and failure.retries == retries


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("7", 7),
        (" 0 ", 0),
        (formatdate(usegmt=True), 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("", None),
        ("1e400", None),
    ],
)
def test_too_many_requests(failing_server, header, expected):
    failing_server.status, failing_server.headers = 429, {"Retry-After": header}
    failure = fail(f"http://{failing_server.address}/graphql")
    assert failure.text.startswith("the Suite gets too many requests (429)")
    assert failure.wait == expected and failure.retries == failures.ALL_TIMES
    assert ("asks to wait 7 seconds" in failure.text) == (expected == 7)


def test_a_date_in_the_future(failing_server):
    failing_server.status = 503
    for seconds in (100, 4000):
        date = formatdate(failures.time.time() + seconds, usegmt=True)
        failing_server.headers = {"Retry-After": date}
        failure = fail(f"http://{failing_server.address}/graphql")
        assert failure.wait == pytest.approx(seconds, abs=3)


def test_answers_that_are_not_json(failing_server):
    failing_server.body = b"<!DOCTYPE html>\n<title>Please log in</title>"
    failure = fail(f"http://{failing_server.address}/", requests.Response.json)
    assert failure.text == (
        "the answer is not JSON but begins with '<!DOCTYPE html> <title>Please log in"
        "</title>'; is it the login page of a network or a proxy?"
    )
    assert failure.retries == failures.FEW_TIMES
    failing_server.body = b'{"data": '
    failure = fail(f"http://{failing_server.address}/", requests.Response.json)
    assert "begins with '{\"data\":'; is it cut off?" in failure.text


def test_graphql_errors_without_extensions(failing_server):
    """The SDK expects a code in each error and fails with a KeyError."""

    def read(answer):
        return answer.json()["errors"][0]["extensions"]["code"]

    for message, error in (
        ("Too\\nbusy", failures.SuiteError),
        ("Project not found", failures.NotFoundError),
        ("It does not exist", failures.NotFoundError),
    ):
        failing_server.body = f'{{"errors": [{{"message": "{message}"}}]}}'.encode()
        failure = fail(f"http://{failing_server.address}/", read)
        text = message.replace("\\n", " ")
        assert failure.text == f"the Suite answers with the error '{text}'"
        assert (failure.error, failure.retries) == (error, failures.NEVER)
    failing_server.body = b"{}"
    failure = fail(f"http://{failing_server.address}/", read)
    assert failure.text == "the SDK cannot read the Suite's answer: KeyError: 'errors'"
