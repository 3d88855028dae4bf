"""`python tests/support/screenshots.py FOLDER`: the pictures of the status page that the documentation shows.

A recorded run is played to a server of its own until it has just been told to stop.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from browser import Tab, chromium
from page_reading import chart, drawn_points
from PIL import Image
from playwright.sync_api import Browser
from recorded_run import RecordedRun, recorded

from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig

RUN = "arithmetic"
STEPS = 112
"""Of the trace; told to stop at the 109th."""
SHOTS: dict[str, dict[str, Any]] = {
    "status-light": {
        "color_scheme": "light",
        "viewport": {"width": 1280, "height": 1590},
        "device_scale_factor": 1.25,
    },
    "status-dark": {
        "color_scheme": "dark",
        "viewport": {"width": 1280, "height": 1590},
        "device_scale_factor": 1.25,
    },
    "status-phone": {
        "color_scheme": "light",
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
    },
}
"""Options of `Browser.new_context` by the picture's name."""


def main() -> None:
    """Play the run, take all pictures."""
    folder = Path(sys.argv[1])
    with (
        tempfile.TemporaryDirectory(prefix="pathwatch-screenshots-") as data,
        BackgroundServer(ServerConfig(data=Path(data))) as server,
        RecordedRun(server.grpc_address, RUN, recorded("pair_s1")) as run,
        chromium() as browser,
    ):
        with RecordedRun(server.grpc_address, f"{RUN}-before", recorded("ol_pair_s0")) as before:
            before.play(1)
        # One step after the other, as a live run: the stop step lies ahead of what was seen.
        for _ in range(STEPS):
            run.play(1)
        for name, options in SHOTS.items():
            picture = _shoot(browser, server.http_address, options)
            (folder / f"{name}.png").write_bytes(picture)
            print(f"{folder / name}.png: {len(picture) // 1000} kB")


def _shoot(browser: Browser, address: str, options: dict[str, Any]) -> bytes:
    tab = Tab(browser, address, **options)
    try:
        page = tab.open(f"/#/runs/{RUN}")
        drawn_points(chart(page, "path_distance"))
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_load_state("networkidle")
        picture = page.screenshot(animations="disabled")
    finally:
        tab.close()
    assert tab.problems == [], tab.problems
    return _smaller(picture)


def _smaller(picture: bytes) -> bytes:
    """The same in 256 colours, chosen so that those of small marks stay what they are."""
    colours = Image.open(io.BytesIO(picture)).convert("RGB")
    palette = colours.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    smaller = io.BytesIO()
    palette.save(smaller, "PNG", optimize=True)
    return smaller.getvalue()


if __name__ == "__main__":
    main()
