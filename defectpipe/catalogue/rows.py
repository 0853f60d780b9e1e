"""Rows into a catalogue that is being built: of a folder that was read, and of folders that an earlier one holds."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from defectpipe.catalogue import schema
from defectpipe.catalogue.reading import FolderTables
from defectpipe.errors import CatalogueError


def insert_folder(con: duckdb.DuckDBPyConnection, folder_id: int, first: int, tables: FolderTables) -> None:
    """Add what was read of a folder to the catalogue ``new``; all of it or nothing.

    Raises
    ------
    CatalogueError
        Its tables hold what cannot be stored.
    """
    ids = range(first, first + len(tables.images))
    of_image = {
        "images": tables.images.assign(image_id=ids, folder_id=folder_id),
        "acquisition": tables.acquisition.assign(image_id=ids),
        "focus": tables.focus.assign(image_id=ids),
    }
    of_many = {"loops": tables.loops, "objects": tables.objects, "embeddings": tables.embeddings}
    con.execute("BEGIN")
    try:
        con.register("keys", schema.as_arrow(of_image["images"][["image_id", "image", "frame"]]))
        for name, rows in of_image.items():
            con.register("incoming", schema.as_arrow(rows))
            schema.insert(con, "new", name, "incoming")
        for name, rows in of_many.items():
            if len(rows):
                con.register("of_images", schema.as_arrow(rows))
                con.execute(
                    "CREATE OR REPLACE TEMP VIEW incoming_rows AS "
                    "SELECT k.image_id, t.* EXCLUDE (image, frame) FROM of_images t JOIN keys k USING (image, frame)"
                )
                schema.insert(con, "new", name, "incoming_rows")
        con.execute("COMMIT")
    except (duckdb.Error, pa.ArrowException) as error:
        con.execute("ROLLBACK")
        raise CatalogueError(f"its tables hold what cannot be stored ({str(error).splitlines()[0]}).") from error


def take_over(con: duckdb.DuckDBPyConnection, kept: Sequence[tuple[int, int, int]]) -> None:
    """Rows of unchanged folders, from the catalogue ``old``, with their numbers in ``new``.

    Parameters
    ----------
    con : DuckDBPyConnection
    kept : sequence of (int, int, int)
        Folder in the old catalogue, in the new one, and by how much the numbers of its images grow.
    """
    if not kept:
        return
    con.execute("CREATE OR REPLACE TEMP TABLE kept (old_folder BIGINT, new_folder BIGINT, shift BIGINT)")
    con.executemany("INSERT INTO kept VALUES (?, ?, ?)", kept)
    for table in (*schema.OF_IMAGE, *schema.OF_MANY, "embeddings"):
        folder = ", kept.new_folder AS folder_id" if table == "images" else ""
        without = "image_id, folder_id" if table == "images" else "image_id"
        con.execute(
            f"CREATE OR REPLACE TEMP VIEW taken AS SELECT t.image_id + kept.shift AS image_id{folder}, "
            f"t.* EXCLUDE ({without}) FROM old.{table} t JOIN (SELECT image_id AS i, folder_id AS f FROM old.images) "
            "ON t.image_id = i JOIN kept ON f = kept.old_folder"
        )
        schema.insert(con, "new", table, "taken")
    con.execute("DROP VIEW taken")
