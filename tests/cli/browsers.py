"""A browser without a window, told what to do over its own protocol."""

import base64
import contextlib
import io
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image
from waiting import PATIENCE, soon

CHROMIUM = Path("/usr/bin/chromium")
_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,900",
    "--remote-debugging-port=0",
]


class Page:
    """One open page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._asked = socket, 0

    async def tell(self, method: str, **parameters: object) -> dict[str, Any]:
        """Have the browser do something, and return its answer."""
        self._asked += 1
        await self._socket.send_json({"id": self._asked, "method": method, "params": parameters})
        while (answer := await self._socket.receive_json(timeout=PATIENCE)).get("id") != self._asked:
            pass
        return answer["result"]

    async def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        answer = await self.tell("Runtime.evaluate", expression=expression)
        return answer["result"].get("value")

    async def type(self, text: str) -> None:
        """Press keys that stand for characters, in the terminal's own line of input."""
        await self.tell("Runtime.evaluate", expression="document.querySelector('textarea').focus()")
        for character in text:
            await self.tell("Input.dispatchKeyEvent", type="keyDown", text=character, key=character)
            await self.tell("Input.dispatchKeyEvent", type="keyUp", key=character)

    async def picture(self) -> np.ndarray:
        """Return what is seen, (H, W, 3)."""
        png = base64.b64decode((await self.tell("Page.captureScreenshot"))["data"])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@contextlib.asynccontextmanager
async def opened(url: str, profile: Path) -> AsyncIterator[Page]:
    """Show a page in a browser that keeps its things in `profile`."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [str(CHROMIUM), *_OPTIONS, f"--user-data-dir={profile}", url]
    process = subprocess.Popen(command, **quiet, start_new_session=True)
    try:
        async with aiohttp.ClientSession() as session:

            async def found() -> str | None:
                with contextlib.suppress(OSError, IndexError, aiohttp.ClientError):
                    port = (profile / "DevToolsActivePort").read_text().split()[0]
                    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                        pages = [each for each in await answer.json() if each["type"] == "page"]
                        return pages[0]["webSocketDebuggerUrl"]
                return None

            async with session.ws_connect(await soon(found), max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
