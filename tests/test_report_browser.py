"""The report in a browser: its switches, order and filter at work, from the keyboard too, and not one complaint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from report_helpers import circles, make_run

from defectpipe.report.data import ReportData
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
def data() -> ReportData:
    found = {name: circles(i, 4 + 3 * i) for i, name in enumerate(NAMES)}
    labels = {"anna": {name: table.iloc[i:] for i, (name, table) in enumerate(found.items())}}
    data = make_run(found, labels=labels, review={"c.tif": "look at it"}, failed={"z.tif": "<b>empty</b>"})
    data.images["focus_score"] = [8.5, 3.25, 9.0, 6.0, np.nan]
    data.images["predicted_f1"] = [0.8, 0.7, 0.75, 0.9, np.nan]
    return data


@pytest.fixture(scope="module")
def page(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
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


def test_every_column_of_numbers_is_sorted(page):
    heads = "[...document.querySelectorAll('#rows th.n')]"
    # All but those of the rows themselves, which a table without frames has not.
    assert page.js(f"{heads}.every(t => t.dataset.sort && t.querySelector('button'))") is True
    for key in page.js(f"{heads}.map(t => t.dataset.sort)"):
        page.js(f"document.querySelector('#rows th[data-sort={key}] button').click()")
        values = page.js(f"[...document.querySelectorAll('#rows tbody tr')].map(r => r.dataset['{key}'])")
        known = [float(value) for value in values if value]
        assert len(known) >= 4, key
        assert known == sorted(known, reverse=key == "number"), key
        assert values[len(known) :] == [""] * (len(values) - len(known))
    page.js("document.querySelector('#rows th[data-sort=number] button').click()")
    page.js("order.value = 'focus'; order.dispatchEvent(new Event('change'))")
    assert page.js(CARDS) == ["b.tif", "d.tif", HOSTILE, "c.tif"]
    page.js("order.value = 'rank'; order.dispatchEvent(new Event('change'))")
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


def bring_into_view(page: Page, selector: str) -> None:
    """Scroll to an element, twice: what is not in view has only a supposed height, and links scroll a moment later."""
    for _ in range(2):
        page.js(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
        page.js("new Promise(done => setTimeout(done, 150))")


def test_a_mouse_zooms_moves_and_leads_from_a_loop_to_its_row(page):
    page.send("Emulation.setDeviceMetricsOverride", width=1000, height=800, deviceScaleFactor=1, mobile=False)
    page.js("location.hash = '#main'")
    bring_into_view(page, "#g3 .picture")
    # In the picture, but on no loop; then on the rim of one.
    corner = "(r => [r.left + 8, r.top + 8])(document.querySelector('#g3 svg.field').getBoundingClientRect())"
    page.click(*page.js(corner))
    assert page.js("document.getElementById('zoom').open") is True
    view = "document.querySelector('dialog[open] svg.field').getAttribute('viewBox').split(' ').map(Number)"
    middle = page.js(
        "(r => [r.left + r.width / 2, r.top + r.height / 2])(document.querySelector('.stage').getBoundingClientRect())"
    )
    page.mouse("mouseWheel", *middle, deltaX=0, deltaY=-100)
    x, _y, width, _height = page.js(view)
    assert width == pytest.approx(400 / 1.2)
    page.mouse("mousePressed", *middle, button="left", buttons=1, clickCount=1)
    page.mouse("mouseMoved", middle[0] - 40, middle[1], button="left", buttons=1)
    page.mouse("mouseReleased", middle[0] - 40, middle[1], button="left", clickCount=1)
    assert page.js(view)[0] > x
    page.js("document.querySelector('[data-zoom=close]').click()")
    bring_into_view(page, "#g3 .picture")
    place = (
        "(r => [r.left + r.width / 2, r.top + r.height / 2])"
        "(document.querySelector('#g3 a[href=\"#i3-l2\"] ellipse').getBoundingClientRect())"
    )
    page.click(*page.js(place))
    assert page.js("location.hash") == "#i3-l2"
    assert page.js("document.getElementById('zoom').open") is False
    assert page.js("new Promise(done => setTimeout(() => done(document.getElementById('i3-loops').open), 100))") is True
    assert page.complaints == []


def middle_of(page: Page, selector: str) -> tuple[float, float]:
    """Where to click on an element, once it is in view."""
    bring_into_view(page, selector)
    box = f"document.querySelector('{selector}').getBoundingClientRect()"
    x, y = page.js(f"(r => [r.left + r.width / 2, r.top + r.height / 2])({box})")
    return x, y


def settled(page: Page) -> None:
    page.js("new Promise(done => setTimeout(done, 200))")


def test_a_click_on_a_bar_lists_its_loops_and_each_leads_to_its_row(page, data):
    page.send("Emulation.setDeviceMetricsOverride", width=1000, height=800, deviceScaleFactor=1, mobile=False)
    whole = data.loops[~data.loops["on_edge"]]
    listed = []
    bars = page.js("[...document.querySelectorAll('.bar-loops')].map(b => [b.id, b.dataset.low, b.dataset.high])")
    scored = [bar for bar in bars if bar[0].startswith(bars[0][0].rsplit("-", 1)[0])]
    assert len(scored) == 3
    for name, low, high in scored:
        # The column above the bar, so that a bar of one loop is as easily hit as the highest.
        page.click(*middle_of(page, f'a[href="#{name}"] .column'))
        assert page.js("location.hash") == f"#{name}"
        settled(page)
        table = f"document.querySelector('#{name} tbody')"
        assert page.js(f"{table}.getBoundingClientRect().top") < 800
        wanted = whole[(whole["diameter_nm"] >= float(low)) & (whole["diameter_nm"] < float(high))]
        wanted = wanted.sort_values("diameter_nm", kind="stable")
        shown = page.js(f"[...{table}.rows].map(r => [r.cells[0].textContent, r.cells[1].textContent])")
        assert sorted(shown) == sorted(wanted[["image", "loop_id"]].astype(str).values.tolist())
        assert page.js(f"document.querySelector('#{name} h3').textContent").endswith(
            f": {len(wanted)} loop" + ("s" if len(wanted) != 1 else "")
        )
        sizes = [float(size) for size in page.js(f"[...{table}.rows].map(r => r.cells[4].textContent)")]
        assert sizes == sorted(sizes)
        listed += shown
    assert len(listed) == len(whole)
    assert {name for name, _loop in listed} == set(NAMES)
    # The others are out of sight, and from a row it goes to the loop's own.
    assert page.js("[...document.querySelectorAll('.bar-loops')].filter(b => b.getClientRects().length).length") == 1
    link = f"#{name} tbody th a"
    where = page.js(f"document.querySelector('{link}').getAttribute('href')")
    page.click(*middle_of(page, link))
    settled(page)
    assert page.js("location.hash") == where
    assert page.js(f"document.querySelector('{where}').closest('details').open") is True
    # From the keyboard.
    page.js(f"document.querySelector('a[href=\"#{scored[0][0]}\"]').focus()")
    page.key("Enter", 13)
    settled(page)
    assert page.js("location.hash") == f"#{scored[0][0]}"
    assert page.complaints == []


@pytest.mark.parametrize(
    ("column", "target"),
    [("labels", "#i3-labels"), ("recall", "#i3-labels"), ("precision", "#i3-loops"), ("predicted", "#i3-loops")],
)
def test_a_click_on_a_number_of_the_labels_opens_the_rows_behind_it(page, data, column, target):
    page.js("for (const one of document.querySelectorAll('details')) one.open = false; location.hash = '#main'")
    place = page.js(f"[...document.querySelectorAll('#rows thead th')].findIndex(t => t.dataset.sort === '{column}')")
    page.click(*middle_of(page, f"#i3 > :nth-child({place + 1}) a"))
    settled(page)
    assert page.js("location.hash") == target
    assert page.js(f"document.querySelector('{target}').open") is True
    top = page.js(f"document.querySelector('{target}').getBoundingClientRect().top")
    assert 0 <= top < 800
    # Of the ten loops the first two are in no label.
    verdicts = page.js("[...document.querySelectorAll('#i3-labels tbody tr')].map(r => r.cells[6].textContent)")
    partners = page.js("[...document.querySelectorAll('#i3-loops tbody tr')].map(r => r.cells[11].textContent)")
    row = data.images.iloc[2]
    counted = [said for said in verdicts if said in ("found", "missed")]
    assert counted.count("found") / len(counted) == row["recall"] == 1.0
    judged = [said for said in partners if said != "–"]
    assert 1 - judged.count("none") / len(judged) == row["precision"] == 0.8
    assert partners[:3] == ["none", "none", "1"]
    assert page.complaints == []


def test_a_click_on_a_focus_score_shows_what_is_known_of_it(page):
    page.js("location.hash = '#main'")
    place = page.js("[...document.querySelectorAll('#rows thead th')].findIndex(t => t.dataset.sort === 'focus')")
    page.click(*middle_of(page, f"#i2 > :nth-child({place + 1}) a"))
    settled(page)
    assert page.js("location.hash") == "#g2-focus"
    assert page.js("document.querySelector('#g2-focus').textContent").startswith("3.2")
    assert 0 <= page.js("document.querySelector('#g2-focus').getBoundingClientRect().top") < 800
    page.click(*middle_of(page, "#g2-focus a"))
    assert page.js("location.hash") == "#i2"
    assert page.complaints == []


CONTRAST = """(() => {
  const light = (c) => { const l = c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * l[0] + .7152 * l[1] + .0722 * l[2]; };
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const below = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.closest('.field, script, style')) continue;
    const style = getComputedStyle(e), ink = parse(e.ownerSVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(below(e))].sort((x, y) => y - x);
    const name = e.tagName + '.' + (e.className.baseVal ?? e.className);
    found.push([(a + .05) / (b + .05), name, e.textContent.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read_on_its_ground(page, scheme):
    """WCAG 2.2, level AA: 4.5 to 1."""
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        dark_paper = page.js("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 28)"
        assert dark_paper == (scheme == "dark")
        found = page.js(CONTRAST)
        assert len(found) > 100
        assert found[0][0] >= 4.5, found[:5]
    finally:
        page.send("Emulation.setEmulatedMedia", features=[])


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
