"""Progress as a person sees it: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0
"""Where there is no terminal, the lines of a stage are so far apart."""


def open_bar(title: str, total: int | None, **form: Any) -> tqdm:
    """A bar on the terminal that stderr is.

    Parameters
    ----------
    title : str
    total : int or None
        Pieces; None: nobody knows how many.
    **form
        What else `tqdm` takes.
    """
    # Some terminals do not say how large they are, and tqdm would draw nothing.
    size = {} if all(os.get_terminal_size(sys.stderr.fileno())) else {"ncols": 80, "nrows": 24}
    return tqdm(total=total, desc=title, **form, **size)
