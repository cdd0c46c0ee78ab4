"""`cmbench serve`: the dashboard for a browser on this machine, and for nobody else."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import psutil
import pytest
from live_runs import live_run

from cmbench.cli.serve import _is_own_page

pytest.importorskip("textual_serve")

PATIENCE = 60.0
NAME = 'odd\'; touch pwned; $(touch pwned) `touch pwned` & "x" -rf'


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def server(home, monkeypatch) -> Iterator[tuple[psutil.Process, int]]:
    run, port = live_run(home / "runs", NAME), free_port()
    monkeypatch.setenv("CMBENCH_CONFIG", "none")
    monkeypatch.setenv("LANG", "C.UTF-8")
    command = [sys.executable, "-m", "cmbench", "serve", str(run.path), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    yield psutil.Process(process.pid), port
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait(PATIENCE)


def page(port: int) -> str:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                assert answer.status == 200
                return answer.read().decode()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def websocket(port: int, origin: str, wanted: bytes) -> bytes:
    """Open the page's connection as a browser would, and read until something comes."""
    request = (
        f"GET /ws?width=100&height=30 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{origin}Upgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(request.encode())
        data = b""
        while wanted not in data and (new := connection.recv(1 << 16)):
            data += new
    return data


def test_the_dashboard_in_a_browser(home, server):
    process, port = server
    text = page(port)
    assert "cmbench" in text
    assert f"ws://127.0.0.1:{port}/ws" in text
    listening = [c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", port)]

    answer = websocket(port, f"Origin: http://127.0.0.1:{port}\r\n", b"step 40/1,000")
    assert b"101 Switching Protocols" in answer
    assert b"step 40/1,000" in answer
    assert not list(home.rglob("pwned"))  # the shell that starts it took the run's name as a name

    for origin in ("Origin: http://evil.example\r\n", "Origin: null\r\n", ""):
        assert websocket(port, origin, b"\r\n\r\n").startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("http://localhost:8000", "127.0.0.1:8000", True),
        ("http://localhost:9000", "127.0.0.1:8000", False),
        ("http://evil.example:8000", "127.0.0.1:8000", False),
        ("http://evil.example:8000", "evil.example:8000", False),  # a name that was made to mean this machine
        ("null", "127.0.0.1:8000", False),
        ("", "127.0.0.1:8000", False),
        ("http://127.0.0.1:x", "127.0.0.1:8000", False),
    ],
)
def test_only_its_own_page_may_speak_to_it(origin, host, own):
    assert _is_own_page(origin, host) == own
