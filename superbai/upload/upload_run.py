"""Runs an `uploader.Uploader` over all images, several at a time."""

import threading
from concurrent.futures import Future

from absl import logging

from superbai.upload.failures import RefusedError

# Images in progress at the same time. The Suite answers each request in tenths of a
# second, and limits their number.
MAX_RUNNING = 8
# After this many failures of the Suite in a row, the remaining images would fail too.
MAX_FAILURES_IN_A_ROW = 20


def upload_all(uploader, items, events, bar):
    """Brings the labels of all items in line, several at a time.

    Args:
        uploader: an `Uploader`.
        items: list of `Item`.
        events: a `SimpleQueue` that gets None for each signal to stop. Signals must not
            raise in the main thread: between the start of a thread and its entry in
            the list, an exception would leave a thread that nobody waits for.
        bar: progress bar with a method `update`.

    Returns:
        A list of the `Outcome` of each item, None for those not finished; and the
        exception that ended the upload early, or None. The caller raises it, as there
        is something to report first.
    """
    futures, num_done, failures_in_a_row, ended_by = [], 0, 0, None
    try:
        while num_done < len(items):
            # Items are started when their turn comes, so nothing needs cancelling.
            while len(futures) < min(num_done + MAX_RUNNING, len(items)):
                futures.append(start_thread(uploader, items[len(futures)], events.put))
            future = events.get()
            if future is None:
                raise KeyboardInterrupt
            num_done += 1
            outcome = future.result()
            bar.update()
            failures_in_a_row += 1
            if not outcome.is_suite_failure:
                failures_in_a_row = 0
            if failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                raise RefusedError(
                    f"{failures_in_a_row} images failed in a row, the last with: "
                    f"{outcome.reason}"
                )
    except BaseException as error:  # Returned, see above.
        ended_by = error
    # The running ones end with their next failure instead of trying again.
    uploader.project.stopped.set()
    if num_done < len(futures) and isinstance(ended_by, KeyboardInterrupt):
        logging.info(
            "interrupted: finishing %d images in progress; interrupt again to stop now",
            len(futures) - num_done,
        )
    while num_done < len(futures) and events.get() is not None:
        num_done += 1
    outcomes = [
        future.result() if future.done() and not future.exception() else None
        for future in futures
    ]
    return outcomes + [None] * (len(items) - len(futures)), ended_by


def start_thread(function, argument, when_done):
    """Calls a function in a daemon thread; returns its `Future`.

    Does not use a `ThreadPoolExecutor`: the interpreter joins the threads of an
    executor at exit, even after `shutdown(wait=False)`, so a request that hangs would
    delay a process that was asked twice to stop.

    Args:
        function: called with `argument`.
        when_done: called with the future, in the thread.
    """
    future = Future()
    future.add_done_callback(when_done)

    arguments = (future, function, argument)
    threading.Thread(target=complete, args=arguments, daemon=True).start()
    return future


def complete(future, function, argument):
    """Calls a function with an argument, and gives the outcome to a `Future`."""
    try:
        result = function(argument)
    except BaseException as error:  # `Future.result` raises it.
        future.set_exception(error)
    else:
        future.set_result(result)
