"""A catalogue to search: by what was measured, by class, by words, and by likeness."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from defectpipe.catalogue import schema
from defectpipe.catalogue.descriptor import DESCRIPTOR, SIZE, Embedder
from defectpipe.catalogue.found import Found
from defectpipe.catalogue.query import CONDITION_NAMES, Columns, Condition, Query, parse_conditions
from defectpipe.errors import CatalogueError
from defectpipe.io.micrographs import read_micrographs
from defectpipe.micrograph import Micrograph

Like = int | np.integer | str | Path | Micrograph | np.ndarray


class Catalogue:
    """The catalogue as it is in its file; nothing here changes it.

    Use it in a ``with`` statement, or `close` it. An index that is built meanwhile is seen by the next `open`.
    """

    def __init__(self, path: Path, con: duckdb.DuckDBPyConnection, columns: Columns, embedder: Embedder) -> None:
        self.path = path
        self._con = con
        self._columns = columns
        self._embedder = embedder

    @classmethod
    def open(cls, path: Path | str, *, embedder: Embedder = DESCRIPTOR) -> Catalogue:
        """Open a catalogue to search it.

        Parameters
        ----------
        path : Path
            The file that `index_folders` made.
        embedder : Embedder
            The one that the catalogue was built with; needed for likeness to images from elsewhere.

        Raises
        ------
        CatalogueError
            It is no catalogue, or one of another version of the program.
        """
        path = Path(os.path.abspath(Path(path).expanduser()))
        con = schema.connect()
        try:
            schema.attach(con, path, "catalogue", read_only=True)
            con.execute("USE catalogue")
            # From here on nothing but this file can be read, whatever a query says.
            con.execute("SET enable_external_access = false")
            row = con.execute("SELECT schema_version FROM about").fetchone()
            if row is None or row[0] != schema.SCHEMA_VERSION:
                raise CatalogueError(f"{path}: this is the catalogue of another version; index a folder to renew it.")
            columns = {table: schema.columns_of(con, "catalogue", table) for table in schema.TABLES}
            return cls(path, con, columns, embedder)
        except BaseException:
            con.close()
            raise

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go."""
        self._con.close()

    def columns(self) -> pd.DataFrame:
        """Everything that can be searched: ``table``, ``column``, ``type`` (text, number or flag), ``n`` (known)."""
        rows = []
        for table, columns in self._columns.items():
            own = {name: kind for name, kind in columns.items() if name not in schema.INTERNAL}
            if table == "embeddings" or not own:
                continue
            counts = ", ".join(f"count({schema.quoted(name)})" for name in own)
            known = self._con.execute(f"SELECT {counts} FROM {table}").fetchone() or ()
            kinds = [schema.plain_type(kind) for kind in own.values()]
            rows += [(table, name, kind, n) for name, kind, n in zip(own, kinds, known, strict=True)]
        return pd.DataFrame(rows, columns=["table", "column", "type", "n"])

    def folders(self) -> pd.DataFrame:
        """The folders of which the catalogue holds the results."""
        return self._con.execute("SELECT * EXCLUDE (fingerprint, words) FROM folders ORDER BY folder_id").df()

    def search(
        self,
        text: str = "",
        *,
        of: str = "images",
        class_name: str = "",
        where: Mapping[str, Condition] | None = None,
        like: Like | None = None,
        order_by: str = "",
        limit: int | None = 100,
        **quantities: Condition,
    ) -> Found:
        """Images (or loops, or objects) for which everything given holds.

        Parameters
        ----------
        text : str
            Words that all have to be in an image's name, folder or metadata; case does not matter.
        of : {"images", "loops", "objects"}
            What a row of the answer is.
        class_name : str
            Class of a loop or object; for images also their kind, condition or sample.
        where : mapping, optional
            Column, such as ``mean_diameter_nm`` or ``loops.diameter_nm``, to a condition: a value, a list of values, a
            pair (low, high) of which either may be None, or None for what is not known. Conditions on loops, in a
            search for images, hold for one and the same loop.
        like : image, optional
            Images that look like this one come first, with their ``likeness`` (at most 1); itself is left out. An
            ``image_id`` of this catalogue, the name of an image in it, the path of an image file, a `Micrograph`, or
            an embedding.
        order_by : str
            A column; with a leading ``-`` from the largest down.
        limit : int or None
            Rows at most; None: all.
        **quantities
            As `where`: ``search(mean_diameter_nm=(5, 20))``.

        Returns
        -------
        Found
            A DataFrame that a notebook shows with thumbnails. ``path`` is the image's file.

        Raises
        ------
        CatalogueError
            A column does not exist, or a condition does not suit it.
        """
        query = self._query(text, of, class_name, {**(where or {}), **quantities})
        likeness = "NULL::FLOAT"
        if like is not None:
            vector, own = self._embedding(like)
            likeness = query.like(vector.tolist(), self._embedder.name)
            if own:
                query.without(own)
        many = f", {of}.rowid AS row_of_many" if of in schema.OF_MANY else ""
        chosen = f"SELECT images.image_id AS hit{many}, {likeness} AS likeness"
        order = self._order(query, order_by, by_likeness=like is not None)
        bounded = "" if limit is None else f" LIMIT {max(0, int(limit))}"
        # Few columns while many rows are looked at, all columns of the few that are left.
        hits = f"{chosen} {query.source(with_embeddings=like is not None)} ORDER BY {order}{bounded}"
        rows = self._run(f"WITH hits AS MATERIALIZED ({hits}) {self._wide(of)} ORDER BY {order}", query.values)
        if like is None:
            rows = rows.drop(columns="likeness")
        return Found.made_of(rows)

    def count(
        self,
        text: str = "",
        *,
        of: str = "images",
        class_name: str = "",
        where: Mapping[str, Condition] | None = None,
        **quantities: Condition,
    ) -> int:
        """Number of rows that `search` would find without a limit; parameters as there."""
        query = self._query(text, of, class_name, {**(where or {}), **quantities})
        return int(self._run(f"SELECT count(*) AS n {query.source()}", query.values)["n"][0])

    def held_by(self, image_ids: Sequence[int], of: str) -> pd.DataFrame:
        """All loops, or objects, of some images: every column that is known of any of them, and ``frame``."""
        if of not in schema.OF_MANY:
            raise CatalogueError(f"Images hold loops or objects, not {of!r}.")
        rows = self._run(
            f"SELECT t.image_id, images.frame, t.* EXCLUDE (image_id) FROM {of} t JOIN images USING (image_id) "
            "WHERE t.image_id IN (SELECT unnest($ids::BIGINT[])) ORDER BY t.image_id, t.rowid",
            {"ids": [int(image_id) for image_id in image_ids]},
        )
        return rows.dropna(axis="columns", how="all")

    def conditions(self, text: str, of: str = "images") -> dict[str, Condition]:
        """Conditions for `search` from a line of text; see `parse_conditions`."""
        types = {}
        for name in CONDITION_NAMES.findall(text):
            table, column = Query(of, self._columns).resolve(name)
            types[name] = schema.plain_type(self._columns[table][column])
        return parse_conditions(text, types)

    def embedding_of(self, like: Like) -> np.ndarray:
        """The embedding of an image, float32, shape (64,); as `like` in `search`."""
        return self._embedding(like)[0]

    def _query(self, text: str, of: str, class_name: str, where: Mapping[str, Condition]) -> Query:
        query = Query(of, self._columns)
        query.words(text)
        if class_name:
            query.class_name(class_name)
        for name, condition in where.items():
            query.where(name, condition)
        return query

    def _wide(self, of: str) -> str:
        """All columns of interest of the hits; of a loop or object its own first, and of its image what it lacks."""
        chosen: dict[str, str] = {}
        tables = [*([of] if of in schema.OF_MANY else []), *schema.OF_IMAGE, "folders"]
        for name, table in (("image_id", "images"), ("folder", "folders"), ("image", "images"), ("frame", "images")):
            chosen[name] = f"{table}.{name}"
        for table in tables:
            for name in self._columns[table]:
                if name not in schema.INTERNAL and name not in ("folder_id", "n_images"):
                    chosen.setdefault(name, f"{table}.{schema.quoted(name)}")
        many = f"JOIN {of} ON {of}.rowid = hits.row_of_many " if of in schema.OF_MANY else ""
        return (
            f"SELECT {', '.join(chosen.values())}, hits.likeness FROM hits {many}"
            "JOIN images ON images.image_id = hits.hit JOIN folders USING (folder_id) "
            "JOIN acquisition ON acquisition.image_id = hit JOIN focus ON focus.image_id = hit"
        )

    @staticmethod
    def _order(query: Query, order_by: str, *, by_likeness: bool) -> str:
        last = f"images.image_id, {query.of}.rowid" if query.of in schema.OF_MANY else "images.image_id"
        if not order_by:
            return f"likeness DESC, {last}" if by_likeness else last
        table, column = query.resolve(order_by.removeprefix("-"))
        if table in schema.OF_MANY and table != query.of:
            raise CatalogueError(f"{order_by}: images have many {table}; order by something that each has once.")
        direction = "DESC" if order_by.startswith("-") else "ASC"
        return f"{table}.{schema.quoted(column)} {direction} NULLS LAST, {last}"

    def _embedding(self, like: Like) -> tuple[np.ndarray, str]:
        """Embedding of an image, and its hash, so that it is not found itself."""
        if isinstance(like, np.ndarray):
            if like.shape != (SIZE,):
                raise CatalogueError(f"An embedding has shape ({SIZE},), not {like.shape}.")
            return like.astype(np.float32), ""
        if isinstance(like, Micrograph):
            return self._embedder.embed(like), like.sha256
        if isinstance(like, str | Path):
            known = self._by_name(str(like)) if isinstance(like, str) else None
            if known is None:
                micrograph = read_micrographs(Path(like), colour="luminance")[0]
                return self._embedder.embed(micrograph), micrograph.sha256
            like = known
        rows = self._run(
            "SELECT vector, sha256 FROM embeddings JOIN images USING (image_id) "
            "WHERE image_id = $image_id AND descriptor = $descriptor",
            {"image_id": int(like), "descriptor": self._embedder.name},
        )
        if rows.empty:
            raise CatalogueError(f"image_id {like}: the catalogue has no embedding of such an image.")
        return np.asarray(rows["vector"][0], np.float32), str(rows["sha256"][0])

    def _by_name(self, name: str) -> int | None:
        rows = self._run(
            "SELECT image_id, sha256, frame FROM images JOIN embeddings USING (image_id) WHERE image = $name "
            "ORDER BY image_id",
            {"name": name},
        )
        if rows.empty:
            return None
        if rows[["sha256", "frame"]].drop_duplicates().shape[0] > 1:
            ids = ", ".join(map(str, rows["image_id"][:5]))
            raise CatalogueError(f"{name}: several images are called so; give an image_id, such as {ids}.")
        return int(rows["image_id"][0])

    def _run(self, sql: str, values: dict[str, Any]) -> pd.DataFrame:
        try:
            return self._con.execute(sql, values).df()
        except duckdb.Error as error:
            raise CatalogueError(f"{self.path}: cannot be searched so ({str(error).splitlines()[0]}).") from error
