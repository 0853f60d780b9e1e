"""The report in a browser: its switches, order and filter at work, from the keyboard too, and not one complaint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from report_helpers import circles, make_run

from defectpipe.report.report import write_report

pytest.importorskip("websocket", reason="the browser is spoken to through websocket-client, which is not installed")
from chromium import CHROMIUM, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: the report is not tried in a browser"),
]
HOSTILE = "<img src=x onerror=\"document.title='owned'\">.tif"
NAMES = (HOSTILE, "b.tif", "c.tif", "d.tif")
ROWS = "[...document.querySelectorAll('#rows tbody tr:not(.hidden)')].map(r => r.dataset.name)"
CARDS = "[...document.querySelectorAll('.card:not(.hidden)')].map(c => c.dataset.name)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    found = {name: circles(i, 4 + 3 * i) for i, name in enumerate(NAMES)}
    labels = {"anna": {name: table.iloc[i:] for i, (name, table) in enumerate(found.items())}}
    data = make_run(found, labels=labels, review={"c.tif": "look at it"}, failed={"z.tif": "<b>empty</b>"})
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(data, path)
    page = Page()
    page.open(path)
    yield page
    page.close()


def shown(page: Page, layer: str) -> set[str]:
    return set(
        page.js(
            f"[...document.querySelectorAll('.card .layer[data-layer={layer}]')].map(g => getComputedStyle(g).display)"
        )
    )


def test_layers_are_switched_on_and_off(page):
    assert shown(page, "loops") == shown(page, "labels-0") == {"inline"}
    for layer in ("candidates", "screened"):
        button = f"document.querySelector('.gallery-bar [data-switch={layer}]')"
        assert shown(page, layer) == {"none"}
        page.js(f"{button}.click()")
        assert shown(page, layer) == {"inline"}
        assert page.js(f"{button}.getAttribute('aria-pressed')") == "true"
        # From the keyboard, back again.
        page.js(f"{button}.focus()")
        page.key("Enter", 13)
        assert shown(page, layer) == {"none"}
        assert page.js(f"{button}.getAttribute('aria-pressed')") == "false"
    assert page.complaints == []


def test_table_and_gallery_are_sorted(page):
    assert page.js(CARDS)[0] == "c.tif"
    assert page.js(ROWS) == [*NAMES, "z.tif"]
    head = "document.querySelector('#rows th[data-sort=loops]')"
    loops = "[...document.querySelectorAll('#rows tbody tr')].map(r => r.dataset.loops)"
    page.js(f"{head}.querySelector('button').click()")
    assert page.js(f"{head}.getAttribute('aria-sort')") == "ascending"
    # The failed image has no number: it goes last, either way round.
    assert page.js(loops) == ["4", "7", "10", "13", ""]
    page.js(f"{head}.querySelector('button').click()")
    assert page.js(f"{head}.getAttribute('aria-sort')") == "descending"
    assert page.js(loops) == ["13", "10", "7", "4", ""]
    page.js("document.querySelector('#rows th[data-sort=number] button').click()")
    page.js("order.value = 'loops'; order.dispatchEvent(new Event('change'))")
    assert page.js(CARDS) == ["d.tif", "c.tif", "b.tif", HOSTILE]
    assert page.complaints == []


def test_a_filter_holds_for_both_and_a_link_into_what_is_hidden_ends_it(page):
    page.js("status.value = 'review'; document.getElementById('status').value = 'review'")
    page.js("document.getElementById('status').dispatchEvent(new Event('change'))")
    assert page.js(CARDS) == page.js(ROWS) == ["c.tif"]
    page.js("document.getElementById('status').value = ''; document.getElementById('filter').focus()")
    for letter in "<IMG":
        page.key(letter)
    assert page.js(CARDS) == page.js(ROWS) == [HOSTILE]
    assert page.js("shown.textContent") == "1 pictures, 1 rows"
    page.js("location.hash = '#i3-l2'")
    assert page.js("new Promise(done => setTimeout(() => done(document.getElementById('i3-loops').open), 100))") is True
    assert len(page.js(ROWS)) == 5
    assert page.complaints == []


def test_a_picture_opens_zooms_and_closes_from_the_keyboard(page):
    page.js("document.querySelector('#g3 .open').focus()")
    page.key("Enter", 13)
    view = "document.querySelector('dialog[open] svg.field').getAttribute('viewBox').split(' ').map(Number)"
    assert page.js(view) == [-0.5, -0.5, 400, 300]
    page.key("+")
    x, _y, width, height = page.js(view)
    assert width == pytest.approx(400 / 1.5)
    assert height / width == 0.75
    page.key("ArrowRight", 39)
    assert page.js(view)[0] == pytest.approx(x + width / 8)
    page.key("0")
    assert page.js(view) == [-0.5, -0.5, 400, 300]
    name = page.js("document.getElementById('zoom-name').textContent")
    page.key("p")
    page.key("n")
    page.key("n")
    assert page.js("document.getElementById('zoom-name').textContent") != name
    page.key("Escape", 27)
    assert page.js("document.getElementById('zoom').open") is False
    assert page.js("document.activeElement.className").endswith("open")
    assert page.complaints == []


def test_it_loads_nothing_and_no_name_ran(page):
    assert [url for url in page.requests if not url.endswith("/report.html")] == []
    assert page.js("document.title") == "Dislocation loops in fields"
    assert page.js("document.querySelectorAll('img, b').length") == 0
    # A narrow window needs no scrolling sideways, and every picture and plot has words.
    page.send("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=1, mobile=False)
    assert page.js("document.documentElement.scrollWidth") <= 360
    assert page.js("[...document.querySelectorAll('svg[role=img]')].every(s => s.getAttribute('aria-label'))") is True
    assert page.js("[...document.querySelectorAll('th')].every(t => t.scope)") is True


def test_on_paper_it_has_its_pictures_and_bars_and_no_controls(page):
    display = "[...document.querySelectorAll('{}')].map(e => getComputedStyle(e).display)"
    page.send("Emulation.setEmulatedMedia", media="print")
    try:
        for kept in (".card svg.field", ".plot .bar", "#rows tr"):
            assert "none" not in page.js(display.format(kept)), kept
        for gone in (".controls", ".open", "nav"):
            assert set(page.js(display.format(gone))) == {"none"}, gone
        assert page.send("Page.printToPDF")["data"]
    finally:
        page.send("Emulation.setEmulatedMedia", media="")


def test_the_browser_would_say_if_something_were_wrong(page, tmp_path):
    (tmp_path / "bad.html").write_text("<script>nobody.knows()</script><script>console.error('me')</script>")
    page.open(Path(tmp_path / "bad.html"))
    assert any("nobody" in said for said in page.complaints)
    assert any("me" in said for said in page.complaints)
