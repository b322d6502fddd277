"""Runs as processes: plain ones of tools/train.py, or forks of the warm server, with the same face.

warm.py says why it is not multiprocessing's forkserver.
"""
from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from tools.checkout import ROOT
from tools.sweeping.leash import LEASH

SERVER_GONE = -1000                         # exit code of a run whose server died before it
_MESSAGE_BYTES = 1 << 16


def server_command() -> list[str]:
    return [sys.executable, str(ROOT / "tools" / "sweeping" / "warm.py")]


def can_fork() -> bool:
    """Whether the warm server works here: Linux, where a child is signalled when its parent dies."""
    return sys.platform == "linux"


class PlainRun:
    """A process of its own.

    Attributes:
        stdout, stderr: text, line by line.
    """

    def __init__(self, command: list[str], environment: dict[str, str]):
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         stderr=subprocess.PIPE, errors="replace", encoding="utf-8",
                                         env={**os.environ, **environment, LEASH: "stdin"})
        self.stdout, self.stderr = self._process.stdout, self._process.stderr

    def wait(self) -> int:
        """Exit code; minus the signal's number where one ended it."""
        code = self._process.wait()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        return code

    def send(self, number: int) -> None:
        """Send a signal; nothing happens where the process has ended."""
        if os.name == "nt":                 # which knows no other way
            self._process.terminate()
        else:
            self._process.send_signal(number)


class WarmRun:
    """A fork of the server; see PlainRun."""

    def __init__(self, server: WarmServer, number: int, leash: int, stdout: int, stderr: int):
        self._server, self._number, self._leash = server, number, leash
        self.stdout, self.stderr = (os.fdopen(end, encoding="utf-8", errors="replace") for end in (stdout, stderr))
        self.ended, self.code = threading.Event(), SERVER_GONE

    def wait(self) -> int:
        self.ended.wait()
        os.close(self._leash)
        return self.code

    def send(self, number: int) -> None:
        self._server.tell({"signal": number, "run": self._number})


class WarmServer:
    """The sweep's end of the warm server, which starts at once and imports while the first runs are asked for.

    Args:
        environment: what its runs find otherwise than this process; those of one run may differ in what is read late.
    Attributes:
        alive: whether runs may be asked for. last_words: the last line of its stderr.
    """

    def __init__(self, environment: dict[str, str], lost: Callable[[WarmServer], None]):
        self.alive, self.last_words, self._lost = True, "", lost
        self._runs: dict[int, WarmRun] = {}
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*server_command(), str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment})
        threading.Thread(target=self._read_words, daemon=True).start()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, arguments: list[str], environment: dict[str, str]) -> WarmRun | None:
        """Ask for a run; None where the server is gone."""
        pipes = [os.pipe() for _ in range(3)]                               # stdin, stdout, stderr: (read, write)
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        with self._lock:
            number = len(self._runs)
            run = self._runs[number] = WarmRun(self, number, pipes[0][1], pipes[1][0], pipes[2][0])
        request = {"run": number, "argv": arguments, "cwd": os.getcwd(), "environment": {**environment, LEASH: "stdin"}}
        sent = self.tell(request, theirs)
        for end in theirs:
            os.close(end)
        if not sent:
            run.stdout.close()
            run.stderr.close()
            os.close(run._leash)
            return None
        return run

    def tell(self, message: dict, files: list[int] = ()) -> bool:
        """Whether the message went out."""
        try:
            socket.send_fds(self._socket, [json.dumps(message).encode()], files)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """End the server, and with it whatever still runs in it."""
        self.alive = False
        self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._socket.close()

    def _listen(self) -> None:
        while message := self._receive():
            run = self._runs[message["run"]]
            run.code = message["code"]
            run.ended.set()
        wanted, self.alive = not self.alive, False
        self._process.wait()
        with self._lock:                    # a run may be asked for just now
            runs = list(self._runs.values())
        for run in runs:
            run.ended.set()
        if not wanted:
            self._lost(self)

    def _receive(self) -> dict | None:
        with contextlib.suppress(OSError):
            if data := self._socket.recv(_MESSAGE_BYTES):
                return json.loads(data)
        return None

    def _read_words(self) -> None:
        with self._process.stderr as words:
            for line in words:
                if text := line.decode(errors="replace").strip():
                    self.last_words = text
