"""`cmbench serve`."""

import errno
import importlib.util
import shlex
import socket
import sys
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from cmbench.cli._options import Runs, RunsDir
from cmbench.errors import ConflictError, UsageError
from cmbench.rundir.select import runs_folder, select

_HOST = "127.0.0.1"


def serve(
    runs: Runs = None,
    runs_dir: RunsDir = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8000,
) -> None:
    """Show the dashboard in a browser on this machine. From afar: ssh -L 8000:127.0.0.1:8000 HOST."""
    folder = runs_folder(runs_dir)
    chosen = [str(select(run, folder).path.resolve()) for run in runs or ()]
    if importlib.util.find_spec("textual_serve") is None:
        raise UsageError("serve: textual-serve is not installed (pip install 'cmbench[serve]')")
    _must_be_free(port)
    from aiohttp.web import HTTPForbidden
    from textual_serve.server import Server

    class LocalServer(Server):
        """Knows no passwords: nobody but this machine may reach it, and no page but its own."""

        async def handle_websocket(self, request: Any) -> Any:
            """Refuse pages of other sites: a browser lets each of them talk to this machine."""
            if not _is_own_page(request.headers.get("Origin", ""), request.headers.get("Host", "")):
                raise HTTPForbidden
            return await super().handle_websocket(request)

    command = [sys.executable, "-m", "cmbench", "watch", *chosen, "--runs-dir", str(folder.resolve())]
    LocalServer(shlex.join(command), host=_HOST, port=port, title="cmbench").serve()


def _must_be_free(port: int) -> None:
    """Refuse a port that cannot be had: the server itself would say so behind its banner, and not which one.

    Raises:
        ConflictError: something else listens there.
        UsageError: this user may not have it.
    """
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            found.bind((_HOST, port))
            found.listen(1)
        except OSError as error:
            kind = ConflictError if error.errno == errno.EADDRINUSE else UsageError
            raise kind(f"serve: port {port} of {_HOST}: {error.strerror}; --port PORT takes another") from None


def _is_own_page(origin: str, host: str) -> bool:
    """Return whether a request comes from the page that this server shows, under names of this machine."""
    try:
        page, server = urlsplit(origin), urlsplit(f"//{host}")
        return page.port == server.port and {page.hostname, server.hostname} <= {_HOST, "localhost"}
    except ValueError:  # a port that is no number
        return False
