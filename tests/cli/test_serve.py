"""`cmbench serve`: the dashboard for a browser on this machine, and for nobody else."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message

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
def server(home, monkeypatch) -> Iterator[tuple[psutil.Process, int, str]]:
    """A server, its port, and the token of the address that it prints."""
    run, port = live_run(home / "runs", NAME), free_port()
    monkeypatch.setenv("CMBENCH_CONFIG", "none")
    monkeypatch.setenv("LANG", "C.UTF-8")
    command = [sys.executable, "-m", "cmbench", "serve", str(run.path), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    printed = process.stdout.readline()
    found = re.fullmatch(rf"http://127\.0\.0\.1:{port}/\?token=([\w-]{{40,}})\n", printed)
    assert found, printed
    yield psutil.Process(process.pid), port, found[1]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    assert found[1] not in process.stdout.read()  # no request is logged with it
    process.stdout.close()
    process.wait(PATIENCE)


def asked(port: int, path: str, cookie: str = "", host: str = "") -> tuple[int, str, Message]:
    """Ask as a browser would, and return the status, what came, and the headers."""
    headers = {"Host": host or f"127.0.0.1:{port}", **({"Cookie": cookie} if cookie else {})}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)

    def answer() -> tuple[int, str, Message] | None:
        try:
            with urllib.request.urlopen(request) as got:
                return got.status, got.read().decode(errors="replace"), got.headers
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode(), refused.headers
        except OSError:  # it says where it is before it listens
            return None

    return until(answer)


def websocket(port: int, headers: str, wanted: bytes, query: str = "") -> bytes:
    """Open the page's connection as a browser would, and read until something comes."""
    request = (
        f"GET /ws?width=100&height=30{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}Upgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(request.encode())
        data = b""
        while wanted not in data and (new := connection.recv(1 << 16)):
            data += new
    return data


def test_the_dashboard_in_a_browser(home, server):
    process, port, token = server
    status, text, headers = asked(port, f"/?token={token}")
    assert status == 200
    assert "cmbench" in text
    assert f"ws://127.0.0.1:{port}/ws" in text
    listening = [c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", port)]

    cookie = f"Cookie: {headers['Set-Cookie'].partition(';')[0]}\r\n"
    answer = websocket(port, f"Origin: http://127.0.0.1:{port}\r\n{cookie}", b"step 40/1,000")
    assert b"101 Switching Protocols" in answer
    assert b"step 40/1,000" in answer
    assert not list(home.rglob("pwned"))  # the shell that starts it took the run's name as a name

    for origin in ("Origin: http://evil.example\r\n", "Origin: null\r\n", ""):
        assert websocket(port, origin + cookie, b"\r\n\r\n").startswith(b"HTTP/1.1 403")


def test_nobody_without_the_token_is_answered(server):
    process, port, token = server
    everything = ["/", "/?", "/static/", "/static/js/textual.js", "/download/x", "/nowhere", "/ws"]
    wrong = ["", "x", token[:-1], f"{token}x", token.swapcase(), "%00", "%FF", "%C3%A9"]
    for path in everything:
        for given in wrong:
            status, text, headers = asked(port, f"{path}{'&' if '?' in path else '?'}token={given}")
            assert (status, headers["Set-Cookie"]) == (403, None), path
            assert "token" in text
            assert asked(port, path, f"cmbench-{port}={given}")[0] == 403
        assert asked(port, path, f"cmbench-{port + 1}={token}")[0] == 403
        assert asked(port, f"{path}?token={token}", host="evil.example")[0] == 403  # a name made to mean this machine
    own = f"Origin: http://127.0.0.1:{port}\r\n"
    assert websocket(port, own, b"\r\n\r\n").startswith(b"HTTP/1.1 403")
    assert websocket(port, own, b"\r\n\r\n", f"&token={token[1:]}").startswith(b"HTTP/1.1 403")
    assert process.children(recursive=True) == []
    assert token not in " ".join(process.cmdline())  # which every user of the machine may read


def test_the_page_is_whole_and_comes_from_here_alone(server):
    _, port, token = server
    status, text, headers = asked(port, f"/?token={token}", host=f"localhost:{port + 1}")  # as through ssh -L
    assert status == 200
    assert {"HttpOnly", "SameSite=Strict"} <= set(headers["Set-Cookie"].split("; "))
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'self';" in headers["Content-Security-Policy"]
    assert token not in text
    assert set(re.findall(r"(?:https?:|wss?:)//[\w.-]+(?::\d+)?", text)) == {
        f"ws://localhost:{port + 1}",
        "http://www.w3.org",  # the name of SVG
    }
    cookie = headers["Set-Cookie"].partition(";")[0]
    parts = {a or b for a, b in re.findall(r"(?:src|href)=\"([^\"]+)\"|url\(\"([^\"]+)\"\)", text)}
    assert any("fonts" in part for part in parts)
    for part in parts:
        assert part.startswith("/static/")
        assert asked(port, part, cookie)[0] == 200


@pytest.mark.skipif(not browsers.CHROMIUM.exists(), reason="wants chromium")
def test_a_browser_draws_it_and_passes_keys_on(server, tmp_path):
    url = f"http://127.0.0.1:{server[1]}/?token={server[2]}"
    asked(server[1], "/")

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
