"""350 command cases each on one connection (cts.json; its origin is in README.md). FLUSHALL goes before each."""

import collections
import contextlib
import json
import socket

from support import HERE, endpoint

REPLY_TIMEOUT_S = 10
ESCAPES = {"n": 10, "r": 13, "t": 9, "a": 7, "b": 8}


class Failure(Exception):
    """An error reply, or no reply."""


class Connection:
    """A RESP2 client of the least possible cleverness."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), REPLY_TIMEOUT_S)
        self.reader = self.socket.makefile("rb")

    def close(self):
        self.reader.close()
        self.socket.close()

    def call(self, words):
        parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        self.socket.sendall(b"".join(parts))
        return self.read()

    def read(self):
        line = self.reader.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("the connection was closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode("utf-8", "surrogateescape")
        if kind == b"-":
            return Failure(rest.decode("utf-8", "replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if int(rest) < 0:
                return None
            return self.reader.read(int(rest) + 2)[:-2].decode("utf-8", "surrogateescape")
        if kind == b"*":
            return None if int(rest) < 0 else [self.read() for _ in range(int(rest))]
        raise OSError(f"not RESP2: {line!r}")


def split(command, binary):
    """Words of a case's command: quotes group, and in a `command_binary` case backslash escapes are bytes."""
    words, word, quote, started, at = [], bytearray(), None, False, 0
    while at < len(command):
        char = command[at]
        at += 1
        if binary and char == "\\" and at < len(command):
            escaped = command[at]
            at += 1
            started = True
            if escaped == "x":
                word.append(int(command[at:at + 2], 16))
                at += 2
            else:
                word.append(ESCAPES.get(escaped, ord(escaped)))
        elif quote is None and char.isspace():
            if started:
                words.append(bytes(word))
            word, started = bytearray(), False
        elif char == quote:
            quote = None
        elif quote is None and not word and char in "\"'":
            quote, started = char, True
        else:
            word += char.encode()
            started = True
    if started:
        words.append(bytes(word))
    return words


def ordered(value):
    if isinstance(value, list):
        return sorted((ordered(item) for item in value), key=repr)
    return value


def run_case(port, case):
    """None when the case passes, else what was wrong. A case may leave its connection subscribed: each has its own."""
    with contextlib.closing(Connection(port)) as connection:
        connection.call([b"FLUSHALL"])
        # Two cases list a result more than they have commands.
        for command, expected in zip(case["command"], case["result"]):
            got = connection.call(split(command, case.get("command_binary", False)))
            if isinstance(got, Failure):
                return f"{command!r}: {got}"
            if case.get("sort_result"):
                got, expected = ordered(got), ordered(expected)
            if got != expected:
                return f"{command!r}: {got!r}, expected {expected!r}"
    return None


def version(text):
    return tuple(int(part) for part in text.split("."))


def server_version(port):
    with contextlib.closing(Connection(port)) as connection:
        found = dict(line.split(":", 1) for line in connection.call([b"INFO", b"server"]).splitlines() if ":" in line)
    return version(found.get("valkey_version") or found["redis_version"])


def fetch():
    return json.loads((HERE / "cts.json").read_text())


def run(cases, server, standin, _options):
    """Names that passed (as counts) and a note for each that failed."""
    passed, notes = collections.Counter(), {}
    with endpoint(server, standin) as (port, _):
        has = server_version(port)
        for number, case in enumerate(cases):
            if case.get("skipped") or case.get("tags") == "cluster" or version(case["since"]) > has:
                continue
            name = f"cts/{number} {case['name']}"
            try:
                problem = run_case(port, case)
            except (OSError, ValueError) as error:
                problem = str(error) or type(error).__name__
            if problem is None:
                passed[name] += 1
            else:
                notes[name] = problem
    return passed, notes
