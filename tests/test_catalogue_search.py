"""Searching a catalogue: against pandas on the same tables; likeness; hostile text; what a notebook shows."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from catalogue_helpers import picture, simulate, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from defectpipe.catalogue import Catalogue, index_folders
from defectpipe.errors import CatalogueError
from defectpipe.micrograph import Micrograph

SCRIPT = "<img src=x onerror=alert(1)>.tif"
HOSTILE = 'it\'s 100%_"x"); DROP TABLE images; --$v0 ünï.tif'
NAMES = ["Größe 300kV.tif", "b/plain.tif", "b/c/deep.tif", HOSTILE, SCRIPT]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    root = tmp_path_factory.mktemp("search")
    write_run(root, "steel", NAMES, magnification=[1e5, 1e5, 2e5, None, 5e4], focus_score=[1.0, 2.0, 3.0, 4.0, None])
    write_run(root, "alloy", ["b/plain.tif", "e.tif"], seed=20, pixel_size_nm=None)
    for kind, n in (("loops", 2), ("solids", 12), ("sem", 6)):
        simulate(kind, n, 5, root / f"sim-{kind}")
    index_folders(root / "c.duckdb", [root])
    return Catalogue.open(root / "c.duckdb")


@pytest.fixture(scope="module")
def everything(catalogue: Catalogue) -> dict[str, pd.DataFrame]:
    return {of: pd.DataFrame(catalogue.search(of=of, limit=None)) for of in ("images", "loops", "objects")}


def found(catalogue: Catalogue, *args, **more) -> set[int]:
    return set(catalogue.search(*args, limit=None, **more)["image_id"])


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("focus_score", 2, 3),
        ("focus_score", None, 2.5),
        ("magnification", 1e5, None),
        ("mean_diameter_nm", None, None),
        ("pixel_size_nm", 0.5, 0.5),
        ("acquisition.pixel_size_nm", 10, None),
        ("n_loops", 10, 5),
    ],
)
def test_a_range_is_what_pandas_says(catalogue, everything, name, low, high):
    images = everything["images"]
    values = images[name.rpartition(".")[2]]
    wanted = values.between(-np.inf if low is None else low, np.inf if high is None else high)
    assert found(catalogue, where={name: (low, high)}) == set(images["image_id"][wanted])
    assert catalogue.count(where={name: (low, high)}) == wanted.sum()


def test_values_lists_and_what_is_not_known(catalogue, everything):
    images = everything["images"]
    assert found(catalogue, origin="Simulated") == set(images["image_id"][images["origin"] == "simulated"])
    assert found(catalogue, kind=["sem", "solids"]) == set(images["image_id"][images["kind"] != "loops"])
    assert found(catalogue, magnification=100_000) == set(images["image_id"][images["magnification"] == 1e5])
    assert found(catalogue, pixel_size_nm=None) == set(
        images["image_id"][images["folder"].str.endswith("alloy-defects")]
    )


def test_loops_and_objects_by_what_was_measured(catalogue, everything):
    loops, objects = everything["loops"], everything["objects"]
    big = loops[loops["diameter_nm"].between(5.2, 6.2) & (loops["source"] == "found")]
    answer = catalogue.search(of="loops", where={"diameter_nm": (5.2, 6.2), "source": "found"})
    assert len(big) > 2
    known = [name for name in big if big[name].notna().any()]
    pd.testing.assert_frame_equal(pd.DataFrame(answer)[known], big[known].reset_index(drop=True), check_dtype=False)
    assert set(big["found_by"]) == {"automatic"}
    assert set(big["origin"]) == {"experimental"}
    assert len(catalogue.search(of="loops", origin="simulated", limit=None)) == (loops["source"] == "truth").sum()
    bent = objects[objects["deformed"].astype(bool) & (objects["volume_nm3"] > 1000)]
    assert 0 < len(bent) < len(objects)
    assert len(catalogue.search(of="objects", deformed=True, volume_nm3=(1000, None))) == len(bent)
    # A condition on the image goes with one on the loop.
    sharp = big[big["focus_score"] > 2]
    assert len(
        catalogue.search(of="loops", where={"diameter_nm": (5.2, 6.2), "source": "found", "focus_score": (2.1, 9)})
    ) == len(sharp)


def test_images_by_what_they_hold(catalogue, everything):
    loops, objects = everything["loops"], everything["objects"]
    # Both conditions on one and the same loop.
    both = loops[(loops["class"] == "closed") & (loops["diameter_nm"] > 9)]
    assert found(catalogue, where={"loops.class": "closed", "loops.diameter_nm": (9, None)}) == set(both["image_id"])
    cones = set(objects["image_id"][objects["class"] == "cone"])
    assert cones
    assert found(catalogue, class_name="Cone") == cones
    assert found(catalogue, class_name="open") == set(loops["image_id"][loops["class"] == "open"])
    assert found(catalogue, class_name="sem") == set(everything["images"].query("kind == 'sem'")["image_id"])
    assert set(catalogue.search(of="objects", class_name="torus", limit=None)["class"]) == {"torus"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("GRÖSSE", {"Größe 300kV.tif"}),
        ("gro\u0308ße 300KV", {"Größe 300kV.tif"}),
        ("c/DEEP", {"b/c/deep.tif"}),
        ("plain alloy", {"b/plain.tif"}),
        ("100%_", {HOSTILE}),
        ("%", {HOSTILE}),
        ("%_", {HOSTILE}),
        ("'", {HOSTILE}),
        ('"x")', {HOSTILE}),
        ("; DROP", {HOSTILE}),
        ("onerror=alert(1)", {SCRIPT}),
        ("toy-model b/", {"b/plain.tif", "b/c/deep.tif"}),
        ("plain deep", set()),
    ],
)
def test_words_are_found_in_whatever_case_and_wildcards_are_words(catalogue, text, names):
    where = {"origin": "experimental"}
    assert set(catalogue.search(text, where=where)["image"]) == names


def test_order_and_limit(catalogue, everything):
    values = everything["images"]["focus_score"].dropna()
    assert catalogue.search(order_by="-focus_score", limit=4)["focus_score"].tolist() == sorted(values)[::-1][:4]
    assert catalogue.search(order_by="focus_score", limit=4)["focus_score"].tolist() == sorted(values)[:4]
    assert pd.isna(catalogue.search(order_by="focus_score", limit=None)["focus_score"].iloc[-1])
    assert len(catalogue.search(limit=0)) == 0


def test_likeness_is_the_scalar_product_and_leaves_the_image_out(catalogue, everything):
    some = int(everything["images"].query("kind == 'sem'")["image_id"].iloc[0])
    answer = catalogue.search(like=some, limit=None)
    assert some not in set(answer["image_id"])
    assert len(answer) == len(everything["images"]) - 1
    assert answer["likeness"].is_monotonic_decreasing
    own = catalogue.embedding_of(some)
    np.testing.assert_allclose(
        answer["likeness"], [catalogue.embedding_of(i) @ own for i in answer["image_id"]], atol=1e-6
    )
    among = catalogue.search(like=some, class_name="cone")
    assert set(among["image_id"]) == found(catalogue, class_name="cone")


def test_solids_find_solids(catalogue, everything):
    """The simulated sets are small; a shuffled answer would be right for half of the neighbours."""
    images = everything["images"]
    images = images[images["kind"] == "solids"]
    nearest = [catalogue.search(like=int(i), limit=3, origin="simulated")["kind"] for i in images["image_id"]]
    assert np.mean([(kinds == "solids").mean() for kinds in nearest]) > 0.85


def test_likeness_to_names_files_pictures_and_vectors(catalogue, everything, tmp_path):
    name = "e.tif"
    row = everything["images"].query("image == @name").iloc[0]
    by_id = catalogue.search(like=int(row["image_id"]))
    by_name = catalogue.search(like=name)
    by_file = catalogue.search(like=Path(row["path"]))
    by_vector = catalogue.search(like=catalogue.embedding_of(name), where={"folder": row["folder"]})
    pd.testing.assert_frame_equal(pd.DataFrame(by_id), pd.DataFrame(by_name))
    assert by_file["image_id"].tolist() == by_id["image_id"].tolist()
    assert by_vector["image"].iloc[0] == name
    # A picture from elsewhere, without a pixel size, as the catalogue's own was.
    other = catalogue.search(like=Micrograph(np.rot90(picture(21, 3)).copy(), "elsewhere"))
    assert other["image"].iloc[0] == name
    assert other["likeness"].iloc[0] > 0.99
    with pytest.raises(CatalogueError, match="several images"):
        catalogue.search(like="b/plain.tif")
    with pytest.raises(CatalogueError, match="no embedding"):
        catalogue.search(like=10**6)
    with pytest.raises(CatalogueError, match="shape"):
        catalogue.search(like=np.zeros(3))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"no_such": 1}, "no such column"),
        ({"focus_scor": 1}, "did you mean focus_score"),
        ({"diameter_nm": (1, 2)}, r"say which is meant: loops\.diameter_nm or objects\.diameter_nm"),
        ({"focus_score": "sharp"}, "holds no text"),
        ({"kind": (1, 2)}, "no numbers"),
        ({"kind": 3}, "holds text"),
        ({"focus_score": (1, 2, 3)}, "two numbers"),
        ({"focus_score": {1: 2}}, "a condition is"),
        ({"focus_score": []}, "a condition is"),
        ({"words": "x"}, "no such column"),
        ({"vector": (0, 1)}, "no such column"),
        ({'image" = image OR 1=1 --': 1}, "no such column"),
        ({"pg_catalog.pg_tables": 1}, "no such column"),
    ],
)
def test_what_cannot_be_asked_is_said(catalogue, where, said):
    with pytest.raises(CatalogueError, match=said):
        catalogue.search(where=where)


def test_rows_and_orders_that_do_not_exist_are_refused(catalogue):
    with pytest.raises(CatalogueError, match="images, loops or objects"):
        catalogue.search(of="folders; DROP TABLE images")
    with pytest.raises(CatalogueError, match="no such column"):
        catalogue.search(order_by="image_id; DROP TABLE images")
    with pytest.raises(CatalogueError, match="images have many loops"):
        catalogue.search(order_by="loops.diameter_nm")


@settings(max_examples=60)
@given(text=st.text(max_size=20), name=st.text(max_size=20))
def test_no_text_breaks_a_search(catalogue, text, name):
    n = catalogue.count()
    for words in (text, f"'{text}", f"{text}'; DROP TABLE images; --"):
        assert catalogue.count(words) <= n
        assert catalogue.count(class_name=words) <= n
        assert catalogue.count(where={"condition": words}) <= n
    with pytest.raises(CatalogueError):
        catalogue.search(where={f"{name}\"'": 1})
    assert catalogue.count() == n


def test_a_search_reads_no_other_file(catalogue):
    """Even if a query could be smuggled in, the connection could not be used for it."""
    for query in ("SELECT * FROM read_csv('/etc/passwd')", "COPY images TO '/tmp/x.csv'", "DROP TABLE images"):
        with pytest.raises(duckdb.Error):
            catalogue._con.execute(query)


def test_a_notebook_shows_thumbnails_with_everything_escaped(catalogue):
    page = catalogue.search("onerror")._repr_html_()
    assert page.count("data:image/jpeg;base64,") == 1
    assert "&lt;img src=x onerror=alert(1)&gt;.tif" in page
    assert "<img src=x" not in page
    every = catalogue.search(limit=None)
    assert every.show(3)._repr_html_().count("data:image") == 3
    assert f"{len(every)} found; the first 3 are shown" in every.show(3)._repr_html_()
    # Rows that are picked by hand still show; a table without images is a table.
    assert every[every["kind"] == "sem"]._repr_html_().count("data:image") == 6
    assert "<table" in every[["kind", "n_loops"]]._repr_html_()
    assert "0 found" in every[every["kind"] == "none"]._repr_html_()


def test_an_image_that_is_gone_has_a_row_without_picture(tmp_path):
    output = write_run(tmp_path, "gone", ["a.tif"])
    index_folders(tmp_path / "c.duckdb", [output])
    (tmp_path / "gone" / "a.tif").unlink()
    with Catalogue.open(tmp_path / "c.duckdb") as catalogue:
        page = catalogue.search()._repr_html_()
    assert "no picture" in page
    assert "a.tif" in page


def test_the_columns_are_listed_with_how_much_is_known(catalogue, everything):
    columns = catalogue.columns().set_index(["table", "column"])
    assert columns.loc[("focus", "focus_score"), "n"] == everything["images"]["focus_score"].notna().sum()
    assert columns.loc[("objects", "deformed"), "type"] == "flag"
    assert columns.loc[("images", "image"), "type"] == "text"
    assert len(catalogue.folders()) == 5


def test_conditions_from_a_line_of_text(catalogue):
    line = (
        "mean_diameter_nm=5..20, origin=simulated,loops.class=open|closed, focus_score=..3, objects.deformed=true, "
        "reason=, n_loops=4"
    )
    assert catalogue.conditions(line) == {
        "mean_diameter_nm": (5.0, 20.0),
        "origin": "simulated",
        "loops.class": ["open", "closed"],
        "focus_score": (None, 3.0),
        "objects.deformed": True,
        "reason": None,
        "n_loops": 4.0,
    }
    assert catalogue.conditions("image=a, b.tif") == {"image": "a, b.tif"}
    assert catalogue.conditions("") == {}
    for wrong in ("focus_score=high", "focus_score", "objects.deformed=2", "nothing=1"):
        with pytest.raises(CatalogueError):
            catalogue.conditions(wrong)


def test_a_catalogue_that_is_not_there_is_said(tmp_path):
    with pytest.raises(CatalogueError, match="no such catalogue"):
        Catalogue.open(tmp_path / "none.duckdb")
    assert not (tmp_path / "none.duckdb").exists()
