"""Film ten seconds of the built book's first page, for README. Writes `book/images/first_page.gif`.

jupyter-book build . && python tools/readme_film.py

A block is dragged around, sentences are typed and a block is added; each frame is a picture of the real page, in which
the policy has answered.
"""

from __future__ import annotations

import base64
import io
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
BOOK = Path(os.environ.get("TINYVLA_BOOK", ROOT / "_build" / "html"))
OUT = ROOT / "book" / "images" / "first_page.gif"
WIDTH, FRAMES, MILLISECONDS, NUM_COLORS = 760, 72, 140, 128
MOUNT = "const mount = document.querySelector('[data-live]');"
BLOCKS = '[{"color":"red","x":12,"y":20},{"color":"blue","x":52,"y":12},{"color":"yellow","x":44,"y":52}]'
SENTENCES = (
    (0, "find the red block"),
    (26, "find the yellow block"),
    (44, "find the blue block"),
    (60, "find the green block"),
)


def place_of(driver: Any) -> dict[str, float]:
    """Where the live part stands in the page."""
    size = {"width": 1300, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_script("scrollTo({top: 0, behavior: 'instant'})")
    x, y = driver.execute_script(
        MOUNT + "const {x, y} = mount.getBoundingClientRect(); return [x + scrollX, y + scrollY]"
    )
    return {"x": x - 8, "y": y - 8, "width": WIDTH, "height": 470, "scale": 1}


def picture(driver: Any, clip: dict[str, float]) -> Image.Image:
    """The live part as it is now."""
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip})
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


def play(driver: Any, number: int) -> None:
    """What happens before a frame."""
    typing = [(number - begin, text) for begin, text in SENTENCES if 0 <= number - begin < 8]
    if typing:
        step, text = typing[0]
        typed = text[: 9 + 2 * step] if step < 7 else text
        driver.execute_script(
            MOUNT + "const i = mount.querySelector('input[type=text]'); i.value = arguments[0];"
            "i.dispatchEvent(new Event('input'))", typed,
        )  # fmt: skip
    if number == 58:
        driver.execute_script(
            MOUNT + "mount.querySelectorAll('[aria-label=\"blocks in the scene\"] button')[1].click()"
        )
    if number < 26:  # the red block goes around
        angle = math.pi + 2 * math.pi * number / 26
        move = "pointerdown" if number == 0 else "pointermove" if number < 25 else "pointerup"
        driver.execute_script(
            MOUNT + "const b = mount.querySelector('.tv-block'), s = b.ownerSVGElement.getBoundingClientRect();"
            "b.setPointerCapture = () => {};"
            "b.dispatchEvent(new PointerEvent(arguments[0], {bubbles: true, pointerId: 1,"
            " clientX: s.x + s.width * arguments[1] / 64, clientY: s.y + s.height * arguments[2] / 64}))",
            move, 32 + 21 * math.cos(angle), 32 + 21 * math.sin(angle),
        )  # fmt: skip


def main() -> None:
    """Drive the page and write the film."""
    sys.path.append(str(ROOT / "tests"))
    from browser import start_chromium

    with tempfile.TemporaryDirectory() as profile:
        driver = start_chromium(Path(profile))
        driver.get((BOOK / "index.html").as_uri())
        driver.execute_script(
            MOUNT + "mount.dataset.blocks = arguments[0]; mount.dataset.text = 'find the red block'", BLOCKS
        )
        driver.execute_script(MOUNT + "mount.querySelector('.tv-wake').click()")
        while not driver.execute_script(MOUNT + "return mount.dataset.awake !== undefined"):
            time.sleep(0.1)
        driver.execute_script("document.activeElement.blur()")
        clip, frames = place_of(driver), []
        for number in range(FRAMES):
            play(driver, number)
            time.sleep(0.15)
            frames.append(picture(driver, clip))
        driver.quit()
    palette = frames[-1].quantize(NUM_COLORS)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    indexed[0].save(OUT, save_all=True, append_images=indexed[1:], duration=MILLISECONDS, loop=0, optimize=True)
    print(f"{OUT.name}: {OUT.stat().st_size / 1e6:.2f} MB, {FRAMES * MILLISECONDS / 1000:.0f} s")


if __name__ == "__main__":
    main()
