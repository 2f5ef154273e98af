"""A headless Chromium that says what it does: its protocol goes over two pipes, so that only the browser is needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

#: As Debian names it; the first is the smaller package.
PROGRAM = next(
    (found for name in ("chromium-headless-shell", "chromium", "google-chrome") if (found := shutil.which(name))), None
)
TIMEOUT = 100


class Browser:
    """One page, at a time. `requests` and `complaints` have what it asked for and what it had to say since `open`."""

    def __init__(self, profile: Path) -> None:
        assert PROGRAM is not None
        read_by_browser, self._out = os.pipe()
        self._in, written_by_browser = os.pipe()

        def pipes() -> None:
            # The browser reads from 3 and writes to 4. Copies first: the ends may have these numbers already.
            reading, writing = os.dup(read_by_browser), os.dup(written_by_browser)
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        self._process = subprocess.Popen(
            [
                *(PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"),
                *("--hide-scrollbars", f"--user-data-dir={profile}", "about:blank"),
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=pipes,  # noqa: PLW1509 - numbers of descriptors must be 3 and 4
        )  # fmt: skip
        os.close(read_by_browser)
        os.close(written_by_browser)
        self._number, self._rest = 0, b""
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + TIMEOUT
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0, until - time.monotonic()))
            assert ready, "the browser says nothing"
            chunk = os.read(self._in, 1 << 16)
            assert chunk, f"the browser has ended: {self._process.poll()}"
            self._rest += chunk
        text, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(text)
        name, facts = message.get("method"), message.get("params", {})
        if name == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif name == "Log.entryAdded":
            self.complaints.append(f"{facts['entry']['level']}: {facts['entry']['text']}")
        elif name == "Runtime.consoleAPICalled":
            self.complaints.append(f"console.{facts['type']}")
        elif name == "Runtime.exceptionThrown":
            self.complaints.append(facts["exceptionDetails"]["text"])
        if name is not None:
            self._events.append(message)
        return message

    def open(self, path: Path, *, width: int, scheme: str, medium: str = "screen") -> None:
        """Shows a file in a window so wide, in light or dark, on a screen or as it would be printed."""
        self.requests, self.complaints, self._events = [], [], []
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", media=medium, features=features)
        self.send("Page.navigate", url=f"file://{path}")
        while not any(each["method"] == "Page.loadEventFired" for each in self._events):
            self._next()

    def value(self, expression: str) -> Any:
        """What an expression is, on the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def picture(self, path: Path) -> None:
        """Writes a screenshot of the window."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def printed(self) -> bytes:
        """The page as a PDF."""
        return base64.b64decode(self.send("Page.printToPDF")["data"])
