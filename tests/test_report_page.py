"""The report: what it says against the tables, whatever the files are called and however many there are."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from report_helpers import JPEG, SHAPE, Html, circles, loops_of, make_run
from test_run_hostile_folders import HOSTILE

from defectpipe.micrograph import Micrograph
from defectpipe.report import report
from defectpipe.report.data import ReportData
from defectpipe.report.figures import cumulative_curve, histogram_edges
from defectpipe.report.gallery import (
    LARGEST_JPEG_BYTES,
    MOST_LISTED,
    MOST_PICTURES,
    Findings,
    choose,
    drawing,
    jpeg_picture,
    order_by_need,
)
from defectpipe.report.plots import ticks
from defectpipe.report.report import render_report

LABELLED = {f"field {i}.tif": circles(i, 12 + i) for i in range(4)}
ONE_EXPERT = {"anna": {name: table.iloc[i:] for i, (name, table) in enumerate(LABELLED.items())}}

# Columns of a loop's row and their places.
SHOWN = {"x_px": 1, "y_px": 1, "diameter_nm": 2, "diameter_uncertainty_nm": 2, "diameter_px": 1}


def page_of(data: ReportData) -> Html:
    return Html(render_report(data))


def test_the_headline_and_the_rows_are_those_of_the_tables():
    data = make_run(LABELLED, labels=ONE_EXPERT)
    page, pooled = page_of(data), data.pooled
    headline = page.words("headline")
    for said in (
        f"Loops {pooled['n_loops']} {pooled['n_loops'] - pooled['n_on_edge']} whole",
        f"Mean diameter {pooled['mean_diameter_nm']:.2f} nm",
        f"95 % interval {pooled['mean_diameter_nm_ci_low']:.2f} to {pooled['mean_diameter_nm_ci_high']:.2f} nm",
        f"deviation of the diameters {pooled['std_diameter_nm']:.3f} nm",
        f"Areal density {pooled['areal_density_per_m2'] / 1e14:.2f} × 10¹⁴ m⁻²",
        f"Recall {data.evaluation['iou_0.4']['recall']:.3f}",
        f"Precision {data.evaluation['iou_0.4']['precision']:.3f}",
        "Focus score, median not assessed",
    ):
        assert said in headline
    for number, row in enumerate(data.images.to_dict("records"), 1):
        said = page.words(f"i{number}")
        density = [row[f"areal_density_per_m2{end}"] / 1e14 for end in ("", "_ci_low", "_ci_high")]
        assert said.startswith(f"{number} {row['image']} ok {row['n_loops']} {row['n_on_edge']} ")
        assert f" {row['mean_diameter_nm']:.2f} ({row['mean_diameter_nm_ci_low']:.2f} to " in said
        assert f" {density[0]:.2f} ({density[1]:.2f} to {density[2]:.2f}) – {row['n_labels']} " in said
        assert f"{row['recall']:.3f} {row['precision']:.3f} 0.5" in said
    first = data.loops.iloc[0]
    said = page.words("i1-l1")
    wanted = (f"{first[name]:.{places}f}" for name, places in SHOWN.items())
    assert said.startswith(" ".join(("1", *wanted)))


def test_every_link_leads_to_its_rows_and_every_number_of_loops_has_one():
    page = page_of(make_run(LABELLED, labels=ONE_EXPERT, failed={"bad.tif": "cut short"}))
    ids = Counter(values["id"] for _tag, values in page.elements if "id" in values)
    assert set(ids.values()) == {1}
    links = [values["href"] for values in page.all("a")]
    inner = {link[1:] for link in links if link.startswith("#")}
    assert inner <= set(ids)
    assert {f"i{n}-loops" for n in range(2, 6)} <= inner
    # A loop in the picture leads to its own row.
    assert {f"i2-l{k}" for k in range(1, 13)} <= inner
    # So does every number that loops make, in the table and the gallery; those of many images lead to the images.
    text = render_report(make_run(LABELLED, labels=ONE_EXPERT))
    row = text[text.index('<tr id="i1"') :].split("</tr>")[0]
    assert row.count('<a href="#i1-loops">') == len(["number", "cut", "mean", "std", "density", "precision"])
    assert row.count('<a href="#i1-labels">') == len(["labels", "recall"])
    card = text[text.index('id="g1"') :].split("</article>")[0]
    assert card.count('<a href="#i1-loops">') == len(["number", "mean", "density", "precision"])
    assert card.count('<a href="#i1-labels">') == len(["recall"])
    told = text[text.index('aria-labelledby="agreement"') :].split("</section>")[0]
    assert told.count('<a href="#images">') == 1 + 2 * 5 + 3 * 3 + 1
    # All else lies beside the report.
    assert all(link.startswith(("#", "./")) for link in links)
    assert not [v for _t, values in page.elements for v in values.values() if re.match(r"(https?:)?//", v)]


def test_hostile_names_are_text_and_nothing_else():
    names = [
        *HOSTILE,
        "</script><script>alert(1)</script>.tif",
        "{{ 7*7 }}&lt;.tif",
        "\" onload='alert(1)'.tif",
        "試 é.tif",
    ]
    found = {name: circles(i, 3) for i, name in enumerate(names)}
    labels = {name: {image: circles(1, 2) for image in names} for name in ("<b>anna</b>", "</title>\nbob")}
    data = make_run(
        found,
        labels=labels,
        failed={"<svg onload=alert(2)>.tif": "<script>alert(3)</script>\nnot an image"},
        skipped={"<iframe src=x>": "a link, <b>not</b> followed"},
        folder="</title><script>alert(4)</script>",
    )
    page = page_of(data)
    assert len(page.scripts) == len(page.styles) == 1
    tags = {tag for tag, _values in page.elements}
    assert not tags & {"img", "iframe", "b", "object", "link", "base", "form", "foreignobject"}
    assert not [name for _tag, values in page.elements for name in values if name.startswith("on")]
    addresses = [v[key] for _tag, v in page.elements for key in ("href", "src", "xlink:href") if key in v]
    assert all(address.startswith(("#", "./", "data:image/jpeg;base64,")) for address in addresses)
    # The policy allows this script and this style by their hashes, and nothing else.
    [policy] = [values["content"] for values in page.all("meta") if "http-equiv" in values]
    for kind, content in (("script", page.scripts[0]), ("style", page.styles[0])):
        hashed = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{hashed}';" in policy
    assert "default-src 'none'" in policy
    # They are all there, what cannot be seen as an escape.
    said = page.words("rows")
    for name in ("<img src=x onerror=alert(1)>.tif", r"a\nb.tif", r"\u202egnp.tif", "{{ 7*7 }}&lt;.tif", "試 é.tif"):
        assert name in said
    assert not {"\x1b", "\u202e", "\r"} & set(render_report(data))
    overlays = {unquote(a) for a in addresses if a.startswith("./overlays/")}
    assert {f"./overlays/{name}.jpg" for name in names} <= overlays


def test_the_same_run_gives_the_same_bytes():
    runs = [make_run(LABELLED, labels={"b": ONE_EXPERT["anna"], "a": dict(LABELLED)}) for _ in range(2)]
    assert render_report(runs[0]) == render_report(runs[1])


def test_what_failed_or_was_left_out_is_listed_with_its_reason():
    data = make_run(
        LABELLED,
        failed={"bad.tif": "the file is empty"},
        review={"field 1.tif": "1 of 13 loops could not be measured well"},
        skipped={"leaves": "a link, not followed"},
    )
    page = page_of(data)
    text = " ".join(" ".join(page.texts["main"].split()).split())
    left_out = text[text.index("What was left out") : text.index("Sizes")]
    for said in ("Failed images bad.tif the file is empty", "field 1.tif 1 of 13 loops", "leaves a link, not followed"):
        assert said in left_out
    assert "1 of 5 images failed" in text
    first = text[text.index("Look at these first") : text.index("What was left out")]
    assert first.index("bad.tif failed: the file is empty") < first.index("field 1.tif to review: 1 of 13")


def test_without_a_pixel_size_it_says_so_at_the_top_and_gives_pixels():
    page = page_of(make_run(LABELLED, nm=None))
    main = page.words("main")
    assert main.startswith("No image has a pixel size")
    assert "Areal density – needs a pixel size" in page.words("headline")
    assert "Mean diameter (px)" in page.words("rows")
    assert "diameter (px)" in main
    assert "diameter (nm)" not in main


def test_without_labels_it_shows_no_agreement():
    page = page_of(make_run(LABELLED))
    assert "agreement" not in page.texts
    assert "Recall" not in page.words("headline")
    assert not [values for values in page.all("button") if values.get("data-switch", "").startswith("labels")]


@pytest.mark.parametrize("nm", [0.5, None])
def test_a_run_with_nothing_found_is_a_report_all_the_same(nm):
    page = page_of(make_run({"a.tif": circles(0, 0)}, nm=nm, labels={"anna": {"a.tif": circles(0, 0)}}))
    assert "Loops 0" in page.words("headline")
    assert "No whole loop was found" in page.words("main")
    assert "nothing found" in page.words("main")
    only_failed = page_of(make_run({}, failed={"a.tif": "not an image"}))
    assert "There is no image to show" in only_failed.words("main")


def test_a_cut_loop_is_in_no_histogram():
    whole, cut = circles(0, 5), circles(1, 1).assign(x0_px=-0.5)
    data = make_run({"a.tif": whole, "b.tif": cut})
    assert data.pooled["n_on_edge"] == 1
    assert f"loops, n = {len(whole)}" in render_report(data)


def test_several_experts_have_a_layer_each_and_their_spread():
    labels = {"anna": dict(LABELLED), "bob": {name: table.iloc[1:] for name, table in LABELLED.items()}}
    data = make_run(LABELLED, labels=labels)
    page = page_of(data)
    assert "Expert spread" in page.words("main")
    f1 = data.evaluation["experts"]["expert_against_expert"][0]["iou_0.4"]["f1"]
    assert f"anna and bob {f1:.3f} 4" in page.words("main")
    switches = {values["data-switch"] for values in page.all("button") if "data-switch" in values}
    assert switches == {"candidates", "screened", "loops", "labels-0", "labels-1"}
    layers = Counter(values["data-layer"] for values in page.all("g") if "layer" in values.get("class", ""))
    assert all(layers[key] == len(LABELLED) for key in switches)


def test_focus_stands_beside_the_loops_once_it_is_assessed():
    data = make_run(LABELLED)
    data.images["focus_score"] = [9.5, 4.25, np.nan, 7.0]
    page = page_of(data)
    assert "Focus score, median 7.00 of 3 images" in page.words("headline")
    assert "Focus score beside loops" in {values.get("aria-label") for values in page.all("svg")}
    assert "not assessed" not in page.words("main")


def test_a_thousand_images_stay_small_and_it_says_what_is_not_shown(monkeypatch):
    n, most_rows = 1000, 400
    assert most_rows < report.MOST_ROWS <= 2000
    monkeypatch.setattr(report, "MOST_ROWS", most_rows)
    objects = circles(0, 30)
    found = {f"field {i:04d}.tif": objects for i in range(4)}
    data = make_run(found, jpeg=JPEG.ljust(LARGEST_JPEG_BYTES, b"\0"))
    # The rows of four images again and again: what counts is how many there are.
    names = [f"field {i:04d}.tif" for i in range(n)]
    images = pd.concat([data.images] * (n // 4), ignore_index=True).assign(image=names)
    loops = pd.concat([loops_of(name, objects, 0.5) for name in names[:4]] * (n // 4), ignore_index=True)
    loops["image"] = np.repeat(names, 30)
    many = ReportData("f", images, loops, data.summary, None, None, [])
    one = data.gallery[0]
    gallery = [
        Findings(names[need.row], 0, one.jpeg, one.candidates, one.screened_out, 30, 30, {})
        for need in choose(many.order, images)
    ]
    assert len(gallery) == MOST_PICTURES
    page = render_report(ReportData("f", images, loops, data.summary, None, None, gallery))
    assert 5e6 < len(page.encode()) < 9e6
    assert f"{MOST_PICTURES} of {n} images have a picture here" in page
    assert f"The worst {most_rows} of {n} images are listed" in page
    assert 0 < len(re.findall(r'<tr id="i\d+-l\d+"', page)) <= MOST_LISTED
    assert len(re.findall(r'<tr id="i\d+"', page)) == most_rows


def test_the_worst_come_first_and_both_ends_are_kept():
    data = make_run(
        {f"{i}.tif": circles(i, 8) for i in range(6)},
        failed={"z.tif": "empty"},
        review={"4.tif": "look"},
        labels={"anna": {"1.tif": circles(1, 14), "2.tif": circles(2, 8)}},
    )
    order = [str(data.images["image"].iloc[need.row]) for need in data.order]
    assert order[:4] == ["z.tif", "4.tif", "1.tif", "2.tif"]
    kept = choose(data.order, data.images, most=4)
    assert [need.row for need in kept] == [need.row for need in data.order[1:3] + data.order[-2:]]
    unsure = data.loops.assign(screening_score=np.where(data.loops["image"] == "5.tif", 0.5, 0.9))
    alone = order_by_need(data.images, unsure, {})
    assert data.images["image"].iloc[alone[2].row] == "5.tif"


@pytest.mark.parametrize("shape", [(700, 900), (1, 3), (64, 4000)])
def test_a_picture_is_small_however_noisy_the_image(shape):
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    made = jpeg_picture(Micrograph(noise, "a.tif"))
    assert made.startswith(b"\xff\xd8")
    assert 100 < len(made) <= LARGEST_JPEG_BYTES


def test_an_ellipse_lies_where_the_table_says_in_the_images_own_coordinates():
    objects = circles(0, 1).assign(x_px=50.0, y_px=40.0, diameter_px=30.0, minor_px=10.0, angle_deg=25.0)
    empty = objects.iloc[:0]
    found = Findings("a.tif", 0, JPEG, empty, empty, 0, 0, {})
    svg = drawing(
        found,
        loops_of("a.tif", objects, 0.5),
        SHAPE,
        pixel_size_nm=0.5,
        box_convention="tight",
        experts=[],
        loop_link="",
        described="",
    )
    assert 'viewBox="-0.5 -0.5 400 300"' in svg
    # SVG counts clockwise.
    assert 'cx="50" cy="40" rx="15" ry="5" transform="rotate(-25 50 40)"' in svg
    assert "50 nm" in svg


def test_axes_have_round_numbers_and_bins_hold_everything():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(3, 47) == [10, 20, 30, 40]
    values = np.random.default_rng(0).lognormal(2, 0.5, 500)
    for sizes in (values, values[:1], np.full(5, 3.0), np.array([0.0])):
        edges = histogram_edges(sizes)
        assert np.histogram(sizes, edges)[0].sum() == len(sizes)
        assert len(edges) <= 34
    # Half of the sizes lie below the median.
    svg = cumulative_curve(values, None, "nm")
    points = np.array([p.split(",") for p in re.search(r'points="([^"]+)"', svg)[1].split()], float)
    low, high = points[0, 0], points[-1, 0]
    span = values.max() - values.min()
    at = low + (high - low) * (np.median(values) - values.min() + 0.03 * span) / (1.06 * span)
    height = np.interp(at, points[:, 0], points[:, 1])
    assert abs(height - (points[0, 1] + points[-1, 1]) / 2) < 2
