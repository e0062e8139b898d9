"""Activities in Python for the worker runtime, which keeps this process and gives it one task at a time."""
import json, os, queue, sys, threading, traceback

_in, _out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", 1, "utf-8", "backslashreplace")
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a child process must not take what the runtime sends,
sys.stdout = os.fdopen(os.dup2(2, 1), "w", 1)  # nor print between the answers; by lines, or the log comes late


class Cancelled(BaseException): ...  # no Exception: `except Exception` in a handler has to let it through


class Failure(Exception):
    def __init__(self, message, type=None, non_retryable=None, next_retry_delay=None, details=None, benign=None):
        super().__init__(message)
        sent = dict(type=type, nonRetryable=non_retryable, nextRetryDelay=next_retry_delay, benign=benign)
        sent["details"] = json.loads(json.dumps(details, allow_nan=False))  # an error here can still be reported
        self.fields = {key: value for key, value in sent.items() if value is not None}


class Task(dict):  # as the runtime sent it: "type", "args", "info", and "heartbeat" if an earlier attempt left one
    def heartbeat(self, details=None):
        self._send(heartbeat=details)
        if "cancel" in self:
            raise Cancelled(self["cancel"])

    def _send(self, **message):
        try:
            _out.write(json.dumps({"id": self["id"], **message}, ensure_ascii=False, allow_nan=False) + "\n")
        except (TypeError, ValueError, RecursionError) as error:
            raise Failure(f"not JSON: {error}", "HandlerOutputInvalid") from error


def activity(type):
    return lambda handler: _handlers.update({type: handler}) or handler


def _unknown(task, *args):
    raise Failure(f"no handler for {task['type']}", "UnknownActivityType")


def _read():
    task = {}
    for message in map(json.loads, _in):
        if "type" in message:
            _tasks.put(task := Task(message))
        elif message["id"] == task.get("id"):
            task.update(message)
    _tasks.put(None)


def run():
    threading.Thread(target=_read, daemon=True).start()
    for task in iter(_tasks.get, None):
        try:
            task._send(result=_handlers.get(task["type"], _handlers["*"])(task, *task["args"]))
        except Cancelled:
            task._send(cancel=True)
        except Exception as error:
            failure = dict(message=str(error), type=type(error).__name__, stackTrace=traceback.format_exc())
            task._send(failure=failure | (error.fields if isinstance(error, Failure) else {}))


_handlers, _tasks = {"*": _unknown}, queue.SimpleQueue()
