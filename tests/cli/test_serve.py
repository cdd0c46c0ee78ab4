"""`cmbench serve`: the dashboard for a browser on this machine, and for nobody else."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import browsers
import numpy as np
import psutil
import pytest
from live_runs import live_run
from waiting import PATIENCE, soon, until

from cmbench.cli.serve import _is_own_page

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
    def read() -> str:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            assert answer.status == 200
            return answer.read().decode()
        return ""

    return until(read)


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


@pytest.mark.skipif(not browsers.CHROMIUM.exists(), reason="wants chromium")
def test_a_browser_draws_it_and_passes_keys_on(server, tmp_path):
    url = f"http://127.0.0.1:{server[1]}/"
    page(server[1])

    async def main() -> None:
        async with browsers.opened(url, tmp_path) as shown:

            async def is_drawn() -> bool:
                """Whether something is seen where the page's own greeting, which lies in the middle, is not."""
                top = (await shown.picture())[:200].reshape(-1, 3)
                _, counts = np.unique(top, axis=0, return_counts=True)
                return await has_class("-first-byte") and counts.max() < 0.97 * len(top)

            async def has_class(name: str) -> bool:
                return name in (await shown.value("document.body?.className") or "")

            await soon(is_drawn)
            assert not await has_class("-closed")
            await shown.type("q")
            await soon(lambda: has_class("-closed"))

    asyncio.run(main())


def test_a_port_that_is_taken_is_one_line_and_a_conflict(home, cmbench):
    run = live_run(home / "runs")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        outcome = cmbench("serve", run.name, "--port", port)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (5, "", 1)
    assert f"port {port} of 127.0.0.1" in outcome.err
    assert "--port" in outcome.err


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
