#!/usr/bin/env python3
"""Speaks the runtime's side of the protocol with each demo, and checks what the adapter answers.

    conformance.py [python] [node] [php] [ruby]     all four when none is named
"""
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Demo, interpreter, and the name that the language gives the ordinary exception of `Raise`.
LANGUAGES = {
    "python": ("python/demo.py", sys.executable, "ValueError"),
    "node": ("node/demo.mjs", "node", "RangeError"),
    "php": ("php/demo.php", "php", "DomainException"),
    "ruby": ("ruby/demo.rb", "ruby", "ArgumentError"),
}
REASONS = ["CANCELLED", "TIMED_OUT", "WORKER_SHUTDOWN", "PAUSED", "RESET", "NOT_FOUND"]
# As little as a worker runtime's container may have. LANG=C finds adapters that leave the encoding to it.
ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/tmp", "LANG": "C", "PYTHONDONTWRITEBYTECODE": "1"}
INFO = {"activityId": "a", "workflowId": "w", "attempt": 1, "taskQueue": "q"}
PATIENCE = 10  # seconds, for a machine under load; what has a limit of its own is measured
ENDS = ("result", "failure", "cancel")


class Problem(Exception):
    pass


def expect(actual, expected, what):
    # As text: to Python's == a 1 is a True.
    if canonical(actual) != canonical(expected):
        raise Problem(f"{what}: expected {short(expected)}, got {short(actual)}")


def canonical(value):
    return json.dumps(value, sort_keys=True)


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


def short(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}... ({len(text)} characters)"


class Process:
    """A demo that runs. Everything that it writes is collected by threads, so that no pipe gets full."""

    def __init__(self, command):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
        self.lines, self.log, self.last_id = queue.Queue(), b"", 0
        self.readers = [threading.Thread(target=read, daemon=True) for read in (self._read_lines, self._read_log)]
        for reader in self.readers:
            reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for reader in self.readers:
            reader.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                stream.close()
            except OSError:
                pass  # what a process that has ended did not read

    def _read_lines(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _read_log(self):
        while chunk := os.read(self.process.stderr.fileno(), 65536):
            self.log += chunk

    def send(self, *messages):
        # Not ASCII alone: a runtime sends UTF-8 as it is.
        text = "".join(json.dumps(message, ensure_ascii=False) + "\n" for message in messages)
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def task(self, type, *args, **more):
        self.last_id += 1
        return {"id": self.last_id, "type": type, "args": list(args), "info": INFO, **more}

    def start(self, type, *args, **more):
        self.send(self.task(type, *args, **more))
        return self.last_id

    def receive(self, seconds=PATIENCE):
        """The next line as (kind, value); None at the end of the output."""
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise Problem(f"no line within {seconds} s; its log: {self.log[-500:]!r}") from None
        if line is None:
            return None
        try:
            message = json.loads(line.decode(), parse_constant=refuse)
        except ValueError:
            raise Problem(f"not a line of JSON: {short(line)}") from None
        if not isinstance(message, dict) or message.pop("id", None) != self.last_id or len(message) != 1:
            raise Problem(f"not one answer to task {self.last_id}: {short(line)}")
        if not line.endswith(b"\n"):
            raise Problem(f"a line without its end: {short(line)}")
        return message.popitem()

    def end(self, heartbeats=None):
        """The end of the running task; its heartbeats are appended to the list."""
        while True:
            answer = self.receive()
            if answer is None:
                raise Problem(f"ended in the middle of a task; its log: {self.log[-500:]!r}")
            kind, value = answer
            if kind in ENDS:
                return kind, value
            expect(kind, "heartbeat", "kind of a line")
            if heartbeats is not None:
                heartbeats.append(value)

    def run(self, type, *args, **more):
        self.start(type, *args, **more)
        return self.end()

    def failure(self, type, *args):
        kind, value = self.run(type, *args)
        expect(kind, "failure", f"end of {type}")
        return value

    def exit_code(self, seconds=PATIENCE):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Problem(f"still runs after {seconds} s") from None

    def wait_for_log(self, text):
        end = time.monotonic() + PATIENCE
        while text not in self.log:
            if time.monotonic() > end:
                raise Problem(f"{text!r} is not in its log: {self.log[-500:]!r}")
            time.sleep(0.01)


def cancel(id, reason="CANCELLED"):
    return {"id": id, "cancel": reason}


def is_retryable(failure):
    expect(failure.get("nonRetryable") in (None, False), True, "retryable")


CHECKS = []


def check(title, *options):
    def register(function):
        CHECKS.append((title, options, function))
        return function

    return register


@check("Echo returns its arguments")
def _(process, _):
    args = [1, 2.5, "text", True, False, None, [], {}, [[], {"a": {}, "b": [None]}], -7, ""]
    expect(process.run("Echo", *args), ("result", args), "end")
    expect(process.run("Echo"), ("result", []), "end without arguments")


@check("text outside ASCII comes back as it was")
def _(process, _):
    # U+2028 and U+0085 end a line for some readers, but not in this protocol.
    text = "Zürich, 東京, \U0001f600, e\u0301, \u2028\u2029\u0085\u00a0\ufeff\u007f"
    expect(process.run("Echo", text, {text: text}), ("result", [text, {text: text}]), "end")
    expect(process.failure("Fail", text)["message"], text, "message")


@check("line ends and control characters in a string stay in it")
def _(process, _):
    text = 'one\ntwo\r\nthree\rfour\ttab\0nul\x1b\x0b\x0c"quoted"\\back\\n'
    expect(process.run("Echo", text), ("result", [text]), "end")


@check("a text of 1.5 MiB comes back")
def _(process, _):
    text = "ü" * (768 * 1024)
    kind, value = process.run("Echo", text)
    expect((kind, value == [text]), ("result", True), "end")


@check("heartbeats come in order, then the result")
def _(process, _):
    heartbeats = []
    process.start("Beat", 5)
    expect(process.end(heartbeats), ("result", None), "end")
    expect(heartbeats, [1, 2, 3, 4, 5], "heartbeats")


@check("the details of an earlier attempt's heartbeat are there")
def _(process, _):
    for details in ({"done": ["ü", 3]}, 7, 0, False, []):
        expect(process.run("Beat", 1, heartbeat=details), ("result", details), "end")
    expect(process.run("Beat", 1), ("result", None), "end of a task without them")


@check("tasks one after another in one process, whatever the end of the last")
def _(process, _):
    for type, end in (("Echo", "result"), ("Fail", "failure"), ("Raise", "failure"), ("Nobody", "failure")) * 3:
        expect(process.run(type, "x")[0], end, f"end of {type}")
    expect(process.process.poll(), None, "exit code")


@check("Failure carries all that it was given")
def _(process, _):
    failure = process.failure("Fail", "no paper")
    is_broken(failure, "no paper")


def is_broken(failure, message):
    wanted = {"message": message, "type": "Broken", "nonRetryable": True, "nextRetryDelay": 2.5}
    wanted["details"] = [{"why": message}]
    expect({key: failure.get(key) for key in wanted}, wanted, "failure")
    expect(failure.get("benign") in (None, False), True, "not benign")


@check("any other exception is a retryable failure with class, message and stack")
def _(process, raised):
    failure = process.failure("Raise")
    expect((failure["type"], failure["message"]), (raised, "no such picture"), "type and message")
    expect(isinstance(failure["stackTrace"], str) and "demo." in failure["stackTrace"], True, "stack names the demo")
    is_retryable(failure)


@check("an unknown activity type is a retryable failure that names it")
def _(process, _):
    failure = process.failure("Nobody")
    expect((failure["type"], "Nobody" in failure["message"]), ("UnknownActivityType", True), "failure")
    is_retryable(failure)


@check("the handler for * takes any type, with the task's info", "any")
def _(process, _):
    expect(process.run("Nobody", 1), ("result", {"type": "Nobody", "info": INFO, "args": [1]}), "end")
    expect(process.run("Echo", 1), ("result", [1]), "end of a type with a handler of its own")


@check("a result that is no JSON is the failure HandlerOutputInvalid")
def _(process, _):
    failure = process.failure("NotJson")
    expect(failure["type"], "HandlerOutputInvalid", "type")
    is_retryable(failure)
    expect(process.run("Echo", 1), ("result", [1]), "end of the next task")


@check("print goes to the log, at once, and not between the answers")
def _(process, _):
    expect(process.run("Print"), ("result", "quiet"), "end")
    process.wait_for_log(b"noise")


@check("Crash ends the process with code 3 and without an answer")
def _(process, _):
    process.start("Crash")
    expect(process.receive(), None, "answer")
    expect(process.exit_code(), 3, "exit code")


@check("a cancellation is acknowledged within 1 s, whatever its reason")
def _(process, _):
    for reason in REASONS:
        id = process.start("Sleep", 60)
        expect(process.receive()[0], "heartbeat", "first line")
        process.send(cancel(id, reason))
        sent = time.monotonic()
        expect(process.end(), ("cancel", True), f"end by {reason}")
        expect(time.monotonic() - sent < 1, True, "within 1 s")
    expect(process.run("Echo", 1), ("result", [1]), "end of the next task")


@check("a cancellation right behind its task is not lost")
def _(process, _):
    task = process.task("Sleep", 60)
    process.send(task, cancel(task["id"]))
    expect(process.end(), ("cancel", True), "end")


@check("cancellations of other tasks are ignored, running or idle")
def _(process, _):
    process.send(cancel(999))
    expect(process.run("Echo", 1), ("result", [1]), "end of the first task")
    process.send(cancel(process.last_id), cancel(999))
    id = process.start("Sleep", 0.4)
    process.send(cancel(999), cancel(id - 1), cancel(id + 1))
    expect(process.end(), ("result", None), "end of Sleep")


@check("AbortSignal cancels what waits without heartbeats", "node only")
def _(process, _):
    id = process.start("Wait", 60)
    time.sleep(0.2)
    process.send(cancel(id))
    expect(process.end(), ("cancel", True), "end")


@check("the end of standard input ends an idle process with code 0 within 2 s")
def _(process, _):
    expect(process.run("Echo", 1), ("result", [1]), "end")
    process.process.stdin.close()
    expect(process.exit_code(2), 0, "exit code")
    expect(process.receive(), None, "last line")


@check("the end of standard input lets a running task finish")
def _(process, _):
    process.start("Sleep", 0.5)
    process.process.stdin.close()
    expect(process.end(), ("result", None), "end")
    expect(process.exit_code(2), 0, "exit code")


def describe(problem):
    return str(problem) if isinstance(problem, Problem) else repr(problem)


def main(names):
    unknown = set(names) - set(LANGUAGES)
    if unknown:
        sys.exit(f"no such language: {', '.join(sorted(unknown))}; there are {', '.join(LANGUAGES)}")
    failed = 0
    for name in names or LANGUAGES:
        demo, interpreter, raised = LANGUAGES[name]
        if not shutil.which(interpreter):
            print(f"{name}: skipped, there is no {interpreter}")
            continue
        for title, options, function in CHECKS:
            if "node only" in options and name != "node":
                continue
            more = [option for option in options if option == "any"]
            try:
                with Process([interpreter, str(HERE / demo), *more]) as process:
                    function(process, raised)
            except Exception as problem:  # an answer without an expected key is a failed check too
                failed += 1
                print(f"FAILED {name}: {title}: {describe(problem)}", flush=True)
            else:
                print(f"ok     {name}: {title}", flush=True)
    print(f"{failed} failed" if failed else "all ok")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
