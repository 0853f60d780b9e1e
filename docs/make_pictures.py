"""Make the README's pictures from the demonstration: a terminal, and the report in a browser; simulated images only.

Runs the demonstration on a terminal of its own, draws what stood there moment by moment as one animated SVG, and takes
pictures of the report in headless Chromium, for light and dark pages: ``make pictures``. Needs Chromium and
websocket-client (which JupyterLab brings).
"""

from __future__ import annotations

import argparse
import base64
import codecs
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))
from chromium import Page  # noqa: E402
from terminal import run_on_terminal  # noqa: E402

# A plain name, for it stands in the picture.
PLACE = Path("/tmp/loops")
PICTURED = "fluence-3_field-001.tif.jpg"
COMMAND = ("luigi", "--module", "defectpipe", "RunAll")
COLUMNS, ROWS = 120, 34
# What the picture's time leaves out: waits longer than this, in s, and changes faster than this.
LONGEST_WAIT_S, SHORTEST_WAIT_S = 0.8, 0.12
LAST_S = 8.0
CHAR_PX, LINE_PX, FONT_PX, MARGIN_PX = 7.8, 18, 13, 14


@dataclass(frozen=True)
class Moment:
    """What stood on the terminal for a while: its lines, and for how many seconds."""

    lines: tuple[str, ...]
    seconds: float


class Screen:
    """The lines of a terminal that only writes, returns to the start of a line, and goes to the next."""

    def __init__(self, columns: int) -> None:
        self._columns, self._lines, self._x = columns, [""], 0

    def write(self, text: str) -> None:
        """Write as a terminal does, with long lines going on in the next."""
        for char in text:
            if char == "\r":
                self._x = 0
            elif char == "\n":
                self._lines.append("")
            elif char >= " ":
                if self._x == self._columns:
                    self._lines.append("")
                    self._x = 0
                line = self._lines[-1].ljust(self._x)
                self._lines[-1] = line[: self._x] + char + line[self._x + 1 :]
                self._x += 1

    def last(self, rows: int) -> tuple[str, ...]:
        """The last lines, as far as they fit."""
        lines = self._lines if self._lines[-1] else self._lines[:-1]
        return tuple(line.rstrip() for line in lines[-rows:])


def record(command: tuple[str, ...], place: Path) -> list[Moment]:
    """Run a command on a terminal of its own, and keep what stood there whenever it changed."""
    screen = Screen(COLUMNS)
    screen.write(f"$ {' '.join(command)}\r\n")
    states = [(time.monotonic(), screen.last(ROWS))]
    decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")

    def told(part: bytes) -> None:
        screen.write(decoder.decode(part))
        states.append((time.monotonic(), screen.last(ROWS)))

    program = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
    if status := run_on_terminal(program, told, cwd=place, rows=ROWS, columns=COLUMNS):
        raise SystemExit(f"{' '.join(command)} ended with {status}:\n" + "\n".join(states[-1][1]))
    return shortened(states)


def shortened(states: list[tuple[float, tuple[str, ...]]]) -> list[Moment]:
    """Moments from times and lines: waits cut short, and changes that nobody could follow left out."""
    moments: list[Moment] = []
    for (begin, lines), (end, after) in zip(states, [*states[1:], (states[-1][0] + LAST_S, ())], strict=True):
        waited = end - begin if not after else min(end - begin, LONGEST_WAIT_S)
        if moments and (moments[-1].seconds < SHORTEST_WAIT_S or moments[-1].lines == lines):
            moments[-1] = Moment(lines, moments[-1].seconds + waited)
        else:
            moments.append(Moment(lines, waited))
    return moments


def animated_svg(moments: list[Moment]) -> str:
    """The moments one after the other, again and again; the last one where nothing may move, and on paper.

    Each line is written once and shown wherever it stood.
    """
    width, height = COLUMNS * CHAR_PX + 2 * MARGIN_PX, ROWS * LINE_PX + 2 * MARGIN_PX
    known: dict[str, int] = {}
    strips = []
    for k, moment in enumerate(moments):
        uses = []
        for row, line in enumerate(moment.lines):
            if line:
                number = known.setdefault(line, len(known))
                y = MARGIN_PX + (row + 0.75) * LINE_PX
                uses.append(f'<use href="#l{number}" y="{y:g}"/>')
        strips.append(f'<g transform="translate({k * width:g})">{"".join(uses)}</g>')
    total, at, steps = sum(moment.seconds for moment in moments), 0.0, []
    for k, moment in enumerate(moments):
        steps.append(f"{100 * at / total:.3f}%{{transform:translateX({-k * width:g}px)}}")
        at += moment.seconds
    final = f"transform:translateX({-(len(moments) - 1) * width:g}px)"
    lines = [
        Markup('<text id="l{}" x="{}"{}>{}</text>').format(
            number, MARGIN_PX, Markup(' class="c"') if line.startswith("$ ") else "", line
        )
        for line, number in known.items()
    ]
    style = (
        f".s{{{final};animation:t {total:.2f}s step-end infinite}}@keyframes t{{{''.join(steps)}}}"
        "@media print,(prefers-reduced-motion:reduce){.s{animation:none}}"
        f"text{{font:{FONT_PX}px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;"
        "fill:#d8dee6;white-space:pre}"
        ".c{fill:#7fd1a8;font-weight:bold}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="A terminal on which the demonstration runs"><style>{style}</style>'
        f"<defs>{''.join(lines)}</defs>"
        f'<rect width="100%" height="100%" rx="6" fill="#161b22"/><g class="s">{"".join(strips)}</g></svg>\n'
    )


def report_pictures(report: Path, folder: Path) -> list[Path]:
    """The top of the report, light and dark, and a part of its gallery with every layer on."""
    page, made = Page(), []
    try:
        page.open(report)
        page.send("Emulation.setScrollbarsHidden", hidden=True)
        for scheme in ("light", "dark"):
            page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            made.append(shoot(page, folder / f"report-{scheme}.webp", "scrollTo(0, 0)", 1200, 940))
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
        every = "document.querySelectorAll('.gallery-bar .switch[aria-pressed=false]').forEach(b => b.click());"
        there = every + "document.getElementById('gallery').scrollIntoView()"
        made.append(shoot(page, folder / "gallery.webp", there, 1200, 760))
    finally:
        page.close()
    return made


def shoot(page, path: Path, code: str, width: int, height: int) -> Path:
    """A picture of what the window shows after some JavaScript."""
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    page.js(f"(() => {{ {code} }})()")
    page.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    shot = page.send("Page.captureScreenshot", format="webp", quality=80)
    path.write_bytes(base64.b64decode(shot["data"]))
    return path


def main() -> None:
    """Make all pictures anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=DOCS, help="folder of the pictures; default: docs")
    into = parser.parse_args().into
    # Fails where the folder is somebody else's.
    PLACE.mkdir()
    try:
        moments = record(COMMAND, PLACE)
        svg = into / "terminal.svg"
        svg.write_text(animated_svg(moments), encoding="utf-8")
        overlay = shutil.copyfile(PLACE / "demo-defects" / "overlays" / PICTURED, into / "overlay.jpg")
        pictures = [svg, overlay, *report_pictures(PLACE / "demo-defects" / "report.html", into)]
    finally:
        shutil.rmtree(PLACE)
    for path in pictures:
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
