"""The warm server of a sweep: imports what every run imports, once, and forks one child per run.

A child is a run of tools/train.py in everything but its start: stdin, stdout, stderr, working folder, environment, name
and arguments are the run's own. The server only imports: it computes nothing, touches no GPU and draws no random
number, so that a child is in the state of a fresh process after the same imports. (NumPy's BLAS starts threads when it
is imported, and ends them before every fork by itself.) Linux only; talks JSON over a socket pair with launch.py.

By hand: the children of multiprocessing's forkserver share its stdin, stdout, stderr and environment, and live on when
the sweep is killed.
"""
from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

_MESSAGE_BYTES = 1 << 16
_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 10                         # for the runs to end when the sweep is gone
_FOR_THE_SWEEP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)     # to act on, and for the runs; all may get them


def import_everything() -> None:
    """What a run of tools/train.py imports until its end, the tokenizer's vocabulary, and the sweep's weights."""
    from dassl.config import get_cfg_default
    from dassl.engine.plugins import extend_all
    from tools import train

    extend_all(get_cfg_default(), train.register())         # which sections only add keys is known from then on
    import torch._dynamo  # noqa: F401 - every optimiser imports it at its first step
    import torchvision.transforms  # noqa: F401 - every dataset's images go through it
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401

    import dassl.engine.trainer
    import dassl.utils.run_lock  # noqa: F401
    import tools.running.first_look  # noqa: F401
    import tools.running.foreign  # noqa: F401
    import tools.running.run
    import tools.running.tested  # noqa: F401
    import tools.sweeping.slots
    from clip.tokenizer import simple_tokenizer

    Image.init()
    simple_tokenizer()
    keep_weights(os.environ.get(tools.sweeping.slots.KEPT, ""))


def keep_weights(names: str) -> None:
    """Read the weights of backbones, one name in a line, for all runs to share. Copies bytes, in this one thread."""
    import torch

    from clip.weights import keep_in_memory

    threads = torch.get_num_threads()
    torch.set_num_threads(1)                # a pool of threads would not live on in the forks
    for name in names.splitlines():
        if ":" not in name:                 # open_clip reads its own files
            keep_in_memory(name)
    torch.set_num_threads(threads)


def serve(channel: socket.socket) -> list[str] | None:
    """Fork a child for every run that is asked for.

    Returns:
        In a child, the arguments of its run. In the server, None when the sweep is gone and all children are.
    """
    own, libc = os.getpid(), ctypes.CDLL(None, use_errno=True)
    children: dict[int, int] = {}           # process -> number of the run
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    gc.collect()
    gc.freeze()                             # the collector leaves these pages alone, so that children share them
    while True:
        ready, _, _ = select.select([channel, read_end], [], [])
        if read_end in ready:
            os.read(read_end, 4096)
            _report(channel, children)
        if channel not in ready:
            continue
        data, files, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 3)
        if not data:
            _end(children)
            return None
        message = json.loads(data)
        if "signal" in message:
            _send(children, message)
            continue
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for end in (read_end, write_end, channel.detach()):
                os.close(end)
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != own:         # it died before that took effect
                os._exit(1)
            return _become(message, files)
        children[pid] = message["run"]
        for file in files:
            os.close(file)


def _become(message: dict, files: list[int]) -> list[str]:
    """Turn this fork into the run: streams, folder, environment, name, signals and an unpredictable NumPy stream."""
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_SWEEP)      # what came since the fork comes now
    os.environ.update(message["environment"])
    os.chdir(message["cwd"])
    sys.argv = [str(ROOT / "tools" / "train.py"), *message["argv"]]
    if numpy := sys.modules.get("numpy"):   # a fresh process's is drawn from the system; children would share one
        numpy.random.seed()
    return message["argv"]


def _report(channel: socket.socket, children: dict[int, int]) -> None:
    """Tell the sweep which children have ended, and how."""
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            message = {"run": children.pop(pid), "code": os.waitstatus_to_exitcode(status)}
            try:
                channel.send(json.dumps(message).encode())
            except OSError:                 # the sweep is gone; the next read says so
                return


def _send(children: dict[int, int], message: dict) -> None:
    for pid, run in children.items():
        if run == message["run"]:           # not waited for yet, so the number is still its own
            os.kill(pid, message["signal"])


def _end(children: dict[int, int]) -> None:
    """End all children, in order if they will."""
    for number, seconds in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, _GRACE_SECONDS)):
        for pid in children:
            os.kill(pid, number)
        until = time.monotonic() + seconds
        while children and time.monotonic() < until:
            for pid in [pid for pid in children if os.waitpid(pid, os.WNOHANG)[0]]:
                del children[pid]
            time.sleep(0.05)


def main(run: Callable[[list[str]], int] | None = None, prepare: Callable[[], None] = import_everything) -> int:
    """Serve on the socket whose number is the argument.

    Args:
        run: what a child does with the arguments of its run; default the command line of tools/train.py.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_SWEEP)
    prepare()
    arguments = serve(socket.socket(fileno=int(sys.argv[1])))
    if arguments is None:
        return 0
    if run is None:
        from tools.train import cli as run
    try:
        code = run(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    return _leave(code)


def _leave(code: int) -> NoReturn:
    """End a child as the interpreter ends, but for taking every module apart, which lasts longer than a small run."""
    threading._shutdown()                   # as multiprocessing ends its forks: threads first, then the exit handlers
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
