"""`cmbench serve`."""

import errno
import hmac
import importlib.util
import logging
import re
import secrets
import shlex
import socket
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from cmbench.cli import _screen
from cmbench.cli._app import app
from cmbench.cli._options import Runs, RunsDir
from cmbench.errors import ConflictError, UsageError
from cmbench.rundir import launch
from cmbench.rundir.select import runs_folder, select

_HOST = "127.0.0.1"
_NAMES = (_HOST, "localhost")
# textual-serve contains this font, but its page fetches the font from another server.
_FONT = '@font-face {font-family: "Roboto Mono"; src: url("/static/fonts/RobotoMono-VariableFont_wght.ttf")}'
_CONTENT = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"


@app.command("serve")
def serve(
    runs: Runs = None,
    runs_dir: RunsDir = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8000,
) -> None:
    """Show the dashboard in a browser on this machine, at a secret address.

    From another machine: ssh -L 8000:127.0.0.1:8000 HOST, then open the address that is printed there.
    """
    folder = runs_folder(runs_dir)
    chosen = [str(select(run, folder).path.resolve()) for run in runs or ()]
    if importlib.util.find_spec("textual_serve") is None:
        raise UsageError("serve: textual-serve is not installed (pip install 'cmbench[serve]')")
    _must_be_free(port)
    command = launch.command("watch", *chosen, "--runs-dir", str(folder.resolve()))
    _server(shlex.join(command), port, secrets.token_urlsafe(32)).serve()


def _server(command: str, port: int, token: str) -> Any:
    """Return a dashboard server that answers only requests with the token, even on this machine."""
    from aiohttp import web
    from textual_serve.server import Server

    cookie = f"cmbench-{port}"  # browsers share cookies between ports

    @web.middleware
    async def guarded(request: web.Request, handler: Any) -> Any:
        """Refuse requests without the token in the address or, after the first visit, in a cookie."""
        given = (request.query.get("token", ""), request.cookies.get(cookie, ""))
        knows = [hmac.compare_digest(each.encode(errors="replace"), token.encode()) for each in given]
        if not any(knows) or not _is_here(request.host):
            raise web.HTTPForbidden(text="403: open the address that cmbench serve printed, including its token\n")
        return await handler(request)

    class LocalServer(Server):
        """A server that only this machine can reach, only with the token, and only from its own page."""

        async def _make_app(self) -> web.Application:
            app = await super()._make_app()
            app.middlewares.append(guarded)
            return app

        def initialize_logging(self) -> None:
            """Keep addresses, which contain the token, out of the printed log."""
            super().initialize_logging()
            logging.getLogger("aiohttp.access").setLevel(logging.WARNING)

        async def handle_index(self, request: web.Request) -> Any:
            """Show the page, with every part of it served from here."""
            page: Any = await super().handle_index(request)
            page.text = _own_page(page.text or "", self.public_url, request.host)
            page.headers.update(_headers(request.host))
            page.set_cookie(cookie, token, httponly=True, samesite="Strict")
            return page

        async def handle_websocket(self, request: web.Request) -> Any:
            """Refuse pages of other sites: a browser lets any of them talk to this machine."""
            if not _is_own_page(request.headers.get("Origin", ""), request.host):
                raise web.HTTPForbidden
            return await super().handle_websocket(request)

        async def on_startup(self, app: web.Application) -> None:
            """Print the address."""
            _screen.text(f"{self.public_url}/?token={token}\nCtrl+C ends it; who has this address can steer the runs")

    return LocalServer(command, host=_HOST, port=port, title="cmbench")


def _own_page(text: str, address: str, host: str) -> str:
    """Return the page without links to other servers, and with addresses as the browser knows them."""
    text = re.sub(r"<link\b[^>]*https?://(?!127\.0\.0\.1)[^>]*>", "", text)
    text = text.replace(f"ws{address.removeprefix('http')}", f"ws://{host}").replace(address, "")
    return text.replace("</head>", f"<style>{_FONT}</style></head>", 1)


def _headers(host: str) -> dict[str, str]:
    """Return headers: load nothing from elsewhere, pass the address to no one, and show the page in no other page."""
    return {
        "Content-Security-Policy": f"{_CONTENT}; connect-src 'self' ws://{host}; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def _must_be_free(port: int) -> None:
    """Refuse a port that is not available: the server itself would say so after its banner, and not name the port.

    Raises:
        ConflictError: something else listens there.
        UsageError: this user may not use the port.
    """
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            found.bind((_HOST, port))
            found.listen(1)
        except OSError as error:
            kind = ConflictError if error.errno == errno.EADDRINUSE else UsageError
            raise kind(f"serve: port {port} of {_HOST}: {error.strerror}; choose another with --port PORT") from None


def _is_own_page(origin: str, host: str) -> bool:
    """Return whether a request comes from this server's own page, under a name of this machine."""
    try:
        page, server = urlsplit(origin), urlsplit(f"//{host}")
        return page.port == server.port and page.hostname in _NAMES and _is_here(host)
    except ValueError:  # the port is not a number
        return False


def _is_here(host: str) -> bool:
    """Return whether a request names this machine itself, and not a foreign name that was made to point to it."""
    name, _, port = host.partition(":")
    return name in _NAMES and (not port or re.fullmatch("[0-9]{1,5}", port) is not None)
