import os
import sys
import time

from temporal_handler import Failure, activity, run


@activity("Echo")
def echo(task, *args):
    return args


@activity("Beat")
def beat(task, count):
    for number in range(1, count + 1):
        task.heartbeat(number)
        time.sleep(0.05)
    return task.get("heartbeat")


@activity("Sleep")
def sleep(task, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        task.heartbeat()
        time.sleep(0.05)


@activity("Fail")
def fail(task, message):
    raise Failure(message, "Broken", non_retryable=True, next_retry_delay=2.5, details=[{"why": message}])


@activity("Crash")
def crash(task):
    os._exit(3)


@activity("Print")
def print_noise(task):
    print("noise")
    return "quiet"


@activity("Raise")
def raise_error(task):
    raise ValueError("no such picture")


@activity("NotJson")
def not_json(task):
    return object()


if "any" in sys.argv:

    @activity("*")
    def any_type(task, *args):
        return {"type": task["type"], "info": task["info"], "args": args}


run()
