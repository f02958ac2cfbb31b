"""What cameras see, for people: beside each other in a file, or live in a browser."""

import io
import textwrap
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import numpy as np
from PIL import Image, ImageDraw

from serl_suite.errors import SerlError
from serl_suite.wire.camera_client import CameraClient
from serl_suite.wire.camera_messages import Pixels

__all__ = ["PortTaken", "Viewer", "sheet"]

BOUNDARY = "picture"
SHOWN_PX = 480
MARGIN_PX = 6
LINE_PX, LINE_LETTERS, LINES = 18, 80, 3
"""Below a picture: what it is, and cause and remedy where there is none."""
PERIOD_S = 1 / 15
PAGE = b"""<!doctype html><title>cameras</title><body style="margin:0;background:#111">
<img src="/live" style="max-width:100%">"""


class PortTaken(SerlError):
    """Another program listens where the browser is to look."""


def sheet(client: CameraClient) -> Pixels:
    """Returns all pictures beside each other, with what there is to say below each. Shape: (height, width, 3)."""
    names = client.names
    width = len(names) * (SHOWN_PX + MARGIN_PX) + MARGIN_PX
    page = Image.new("RGB", (width, SHOWN_PX + 2 * MARGIN_PX + LINES * LINE_PX), (17, 17, 17))
    draw = ImageDraw.Draw(page)
    for column, name in enumerate(names):
        left, below = MARGIN_PX + column * (SHOWN_PX + MARGIN_PX), MARGIN_PX + SHOWN_PX
        picture, sight = client.picture(name), client.sight(name)
        if picture.size:
            shown = Image.fromarray(picture).resize((SHOWN_PX, SHOWN_PX), Image.Resampling.NEAREST)
            page.paste(shown, (left, MARGIN_PX))
        fault, detail = client.fault(name)
        size = f"{sight.size}x{sight.size}, frame {sight.stamp.sequence}"
        age = f"{1e3 * client.age_s(name):.0f} ms old" if sight.size else ""
        said = "  ".join(part for part in (name, size, age, fault) if part)
        draw.text((left, below), said, fill=(255, 120, 120) if fault else (220, 220, 220))
        for line, words in enumerate(textwrap.wrap(detail, LINE_LETTERS)[: LINES - 1], 1):
            draw.text((left, below + line * LINE_PX), words, fill=(255, 120, 120))
    return np.asarray(page)


class Viewer:
    """Shows the cameras at http://127.0.0.1:PORT, to this machine only.

    Args:
        client: Asked by one browser at a time.
        port: 0: one that is free.

    Raises:
        PortTaken: Another program listens there.
    """

    def __init__(self, client: CameraClient, port: int) -> None:
        lock = Lock()

        def jpeg() -> bytes:
            with lock:  # a client belongs to one thread
                client.look()
                page = sheet(client)
            target = io.BytesIO()
            Image.fromarray(page).save(target, "JPEG", quality=85)
            return target.getvalue()

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(jpeg))
        except OSError as error:
            raise PortTaken(f"127.0.0.1:{port} is in use; take another --port") from error
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Shows no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(jpeg: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/live":
                self._live()
            else:
                self._send(200, "text/html", PAGE)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: one line for each picture helps nobody."""

        def _live(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
            self.end_headers()
            try:
                while True:
                    body = jpeg()
                    self.wfile.write(
                        f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\n\r\n".encode() + body + b"\r\n"
                    )
                    time.sleep(PERIOD_S)
            except (BrokenPipeError, ConnectionResetError):  # the page was closed
                return

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
