"""How the labels of all images are brought in line in parallel."""

import signal
import threading
import time
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from superbai.upload import failures, upload_run
from superbai.upload.uploader import Outcome
from valohai_step import runtime


class FakeUploader:
    """Calls a function for each item, as `Uploader` does; counts parallel calls."""

    def __init__(self, function=lambda item: Outcome("created")):
        self.project = SimpleNamespace(stopped=threading.Event())
        self.started, self.num_running, self.most_running = [], 0, 0
        self._function, self._lock = function, threading.Lock()

    def __call__(self, item):
        with self._lock:
            self.started.append(item)
            self.num_running += 1
            self.most_running = max(self.most_running, self.num_running)
        try:
            return self._function(item)
        finally:
            with self._lock:
                self.num_running -= 1


def upload_all(fake, num_items, signals=None):
    bar = SimpleNamespace(update=int)
    return upload_run.upload_all(fake, range(num_items), signals or SimpleQueue(), bar)


def test_outcomes_are_in_the_order_of_the_items():
    def finish_in_another_order(item):
        time.sleep(0.01 * (item % 3 == 0))
        return Outcome("created", str(item))

    fake = FakeUploader(finish_in_another_order)
    outcomes, ended_by = upload_all(fake, 30)
    assert ended_by is None
    assert [outcome.reason for outcome in outcomes] == [str(i) for i in range(30)]


@pytest.mark.parametrize("num_items", [0, 1, 8, 9, 40])
def test_no_more_than_eight_run_at_the_same_time(num_items):
    limit = min(num_items, 8)
    all_running = threading.Event()

    def wait_for_the_others(item):
        if fake.num_running == limit:
            all_running.set()
        assert all_running.wait(10)
        time.sleep(0.01)
        return Outcome("updated")

    fake = FakeUploader(wait_for_the_others)
    outcomes, ended_by = upload_all(fake, num_items)
    assert (outcomes, ended_by) == ([Outcome("updated")] * num_items, None)
    assert fake.most_running == limit


def test_a_signal_while_a_thread_starts(monkeypatch):
    fake = FakeUploader()
    start_thread = threading.Thread.start

    def start(thread):
        start_thread(thread)
        if len(fake.started) > 20 and not fake.project.stopped.is_set():
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(threading.Thread, "start", start)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    signals = SimpleQueue()
    try:
        with pytest.raises(KeyboardInterrupt), runtime.signals_held(signals):
            outcomes, ended_by = upload_all(fake, 100, signals)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert isinstance(ended_by, KeyboardInterrupt)
    assert 20 < len(fake.started) < 100
    done = [number for number, outcome in enumerate(outcomes) if outcome]
    assert done == sorted(fake.started)


@pytest.mark.parametrize("num_signals", [1, 2])
def test_the_first_signal_waits_for_running_items_the_second_does_not(num_signals):
    signals, release = SimpleQueue(), threading.Event()

    def block(item):
        if item == 0:
            return Outcome("created")
        if item == 8:  # Starts when item 0 is done, as the last of eight.
            for _ in range(num_signals):
                signals.put(None)
            if num_signals == 1:
                release.set()
        assert release.wait(10)
        return Outcome("updated")

    fake = FakeUploader(block)
    outcomes, ended_by = upload_all(fake, 100, signals)
    num_running = fake.num_running
    release.set()
    assert isinstance(ended_by, KeyboardInterrupt) and fake.project.stopped.is_set()
    assert len(outcomes) == 100 and sorted(fake.started) == list(range(9))
    finished = [Outcome("updated")] * 8 if num_signals == 1 else [None] * 8
    assert outcomes == [Outcome("created"), *finished, *[None] * 91]
    assert num_running == (0 if num_signals == 1 else 8)


def test_failures_of_the_suite_in_a_row_stop_the_upload():
    fake = FakeUploader(lambda item: Outcome("failed", "no answer", True))
    outcomes, ended_by = upload_all(fake, 100)
    assert isinstance(ended_by, failures.RefusedError)
    assert str(ended_by) == "20 images failed in a row, the last with: no answer"
    num_done = sum(outcome is not None for outcome in outcomes)
    assert 20 <= num_done == len(fake.started) <= 27


@pytest.mark.parametrize("is_suite_failure", [True, False])
def test_other_failures_do_not_stop_the_upload(is_suite_failure):
    def fail_sometimes(item):
        if is_suite_failure and item % 2:
            return Outcome("created")
        return Outcome("failed", "no answer", is_suite_failure)

    outcomes, ended_by = upload_all(FakeUploader(fail_sometimes), 100)
    assert ended_by is None and None not in outcomes


@pytest.mark.parametrize("error", [failures.RefusedError("no"), KeyError("bug")])
def test_an_exception_stops_the_upload_and_is_returned(error):
    def fail(item):
        if item == 5:
            raise error
        return Outcome("created")

    fake = FakeUploader(fail)
    outcomes, ended_by = upload_all(fake, 100)
    assert ended_by is error and fake.project.stopped.is_set()
    assert outcomes[5] is None and len(fake.started) < 100
    expected = [i for i in sorted(fake.started) if i != 5]
    assert [i for i, outcome in enumerate(outcomes) if outcome] == expected
