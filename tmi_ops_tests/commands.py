"""The command as a process of its own, without the second and a half in which Python loads what it needs.

A server that has everything loaded forks for each call: the child has its own environment, directory, streams, signals
and exit code, as one that a shell starts.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

COULD_NOT_RUN = 97
_CONTROL = re.compile("\x1b\\[[0-9;?]*[A-Za-z]|\r")
_DRAWN_OVER = re.compile("[^\n]*\r(?:\x1b\\[[0-9;?]*[A-Za-z])*\x1b\\[2?K|[^\n]*\x1b\\[1A\x1b\\[2K")
_ROOT = Path(__file__).parents[1]


def command(
    *words: str, env: Mapping[str, str], cwd: Path | str, said: str = "", timeout: float = 200
) -> subprocess.CompletedProcess[str]:
    """`tmi-ops` with these words.

    Args:
        env: all of its variables.
        said: what a person types.
        timeout: seconds, after which it is killed.

    Raises:
        subprocess.TimeoutExpired: it did not end.
    """
    with tempfile.TemporaryDirectory() as directory:
        streams = {name: str(Path(directory) / name) for name in ("stdin", "stdout", "stderr")}
        Path(streams["stdin"]).write_text(said)
        call = {"words": words, "env": dict(env), "cwd": str(cwd), "timeout": timeout, **streams}
        code: int | None = _server().call(call)
        out, err = (Path(streams[name]).read_text(errors="replace") for name in ("stdout", "stderr"))
    if code is None:
        raise subprocess.TimeoutExpired(list(words), timeout, out, err)
    return subprocess.CompletedProcess(["tmi-ops", *words], code, out, err)


def first_shown(
    calls: Sequence[Sequence[str]], *, env: Mapping[str, str], cwd: Path | str, timeout: float = 60
) -> list[str]:
    """What each of these commands shows first at a terminal of 80 columns, all of them run at once; then it is killed.

    A command that ends, or shows nothing for `timeout` seconds, has shown what it had until then.
    """
    call = {"env": dict(env), "cwd": str(cwd), "timeout": timeout, "until": "seen"}
    shown: list[str] = _server().call({"shows": [{**call, "words": list(words)} for words in calls]})
    return shown


def screens(calls: Sequence[Sequence[str]], *, env: Mapping[str, str], cwd: Path | str) -> list[str]:
    """What these commands leave on a terminal of 80 columns, all of them run at once until they end; colours and what
    was drawn over are left out."""
    call = {"env": {"TERM": "xterm", **env}, "cwd": str(cwd), "timeout": 200, "until": "end"}
    shown: list[str] = _server().call({"shows": [{**call, "words": list(words)} for words in calls]})
    return [_CONTROL.sub("", _DRAWN_OVER.sub("\n", text.replace("\r\n", "\n"))) for text in shown]


class _Server:
    def __init__(self) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        argv = [sys.executable, "-m", "tmi_ops_tests.commands"]
        self._process = subprocess.Popen(
            argv, env=kept, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def call(self, call: Mapping[str, object]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@functools.cache
def _server() -> _Server:
    """One for each process that runs tests; it ends with its standard input."""
    return _Server()


def serve() -> None:
    """Fork for each line of standard input, and answer with the exit code."""
    _load_everything()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        call = json.loads(line)
        answer = _show(call["shows"]) if "shows" in call else _await(_fork(call), call["timeout"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _fork(call: Mapping[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        _become(call)
    return child


def _show(calls: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each call at a terminal of its own, until it has ended, or shows something other than a control sequence."""
    terminals, children = [], []
    for call in calls:
        ours, theirs = os.openpty()
        termios.tcsetwinsize(ours, (24, 80))
        name = os.ttyname(theirs)
        children.append(_fork({**call, "stdin": name, "stdout": name, "stderr": name}))
        os.close(theirs)
        terminals.append(ours)
    shown = [_read(ours, call["until"], call["timeout"]) for ours, call in zip(terminals, calls, strict=True)]
    for child, ours in zip(children, terminals, strict=True):
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ours)
    return shown


def _read(terminal: int, until: str, timeout: float) -> str:
    text = b""
    deadline = time.monotonic() + timeout
    while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            text += os.read(terminal, 1 << 16)
        except OSError:  # everybody has closed it
            break
        if until == "seen" and _CONTROL.sub("", text.decode(errors="replace")):
            break
    return text.decode(errors="replace")


def _become(call: Mapping[str, Any]) -> None:
    from tmi_ops.cli.main import main

    code = COULD_NOT_RUN
    try:
        os.setsid()
        for number, name, mode in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_WRONLY), (2, "stderr", os.O_WRONLY)):
            opened = os.open(str(call[name]), mode | os.O_CREAT, 0o600)
            os.dup2(opened, number)
            os.close(opened)
        sys.stdin = os.fdopen(0, closefd=False)
        os.chdir(str(call["cwd"]))
        os.environ.clear()
        os.environ.update(call["env"])
        time.tzset()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["tmi-ops", *call["words"]]
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # noqa: BLE001 - as an interpreter ends that nobody catches it in
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _await(child: int, timeout: float) -> int | None:
    deadline = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)


def _load_everything() -> None:
    import botocore.session
    import click

    from tmi_ops.cli.main import SECTIONS, tmi_ops

    context = click.Context(tmi_ops)
    for section in SECTIONS.values():
        for name in section:
            tmi_ops.get_command(context, name)
    for file in sorted((_ROOT / "tmi_ops").rglob("*.py")):
        module = ".".join(file.relative_to(_ROOT).with_suffix("").parts)
        if not module.startswith(("tmi_ops.orchestration", "tmi_ops.definitions")) and not module.endswith("__init__"):
            importlib.import_module(module)
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    import boto3

    boto3.session.Session(region_name="us-east-1").client(
        "s3", aws_access_key_id="none", aws_secret_access_key="none", endpoint_url="http://127.0.0.1:9"
    ).close()


if __name__ == "__main__":
    serve()
