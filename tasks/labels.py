"""The labels of a run, read once, matched with the images that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tasks.plan import Plan
from tasks.stamps import digest, read_stamp

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of the images, and what of them could not be used."""

    experts: Mapping[str, Mapping[str, pd.DataFrame]]
    unmatched_labels: Sequence[str]
    unlabelled_images: Sequence[str]
    errors: Mapping[str, str]
    n_clipped: int
    convention_note: str
    frame: int

    def of(self, image: str) -> pd.DataFrame | None:
        """The labels of an image that stand beside the machine's: the first expert's by name. None: not labelled."""
        return next((self.experts[name][image] for name in sorted(self.experts) if image in self.experts[name]), None)

    def digest_of(self, image: str) -> str:
        """Hash of `of`; empty when there are none."""
        table = self.of(image)
        return "" if table is None else digest(table.to_csv(index=False))


@lru_cache(maxsize=1)
def read_labels(plan: Plan) -> Labels | None:
    """The labels of the plan's images that were measured; None when no labels were given.

    Raises
    ------
    LabelError
        The labels as a whole are ambiguous or of no known format.
    """
    if plan.labels_dir is None:
        return None
    from defectpipe.io.labels import read_label_folder
    from defectpipe.statistics.agreement import LABELLED_FRAME

    stamps = {image: read_stamp(plan.result("measurement", image).stamp) for image in plan.images}
    shapes = [
        (image, (stamp.frames[0]["height_px"], stamp.frames[0]["width_px"]))
        for image, stamp in stamps.items()
        if stamp is not None and stamp.frames
    ]
    found = read_label_folder(
        plan.labels_dir,
        shapes,
        label_format=plan.label_format,
        box_convention=plan.settings.labels.box_convention,
        clip=plan.settings.labels.clip,
    )
    failed = set(plan.images) - {image for image, _shape in shapes}
    stems = {image.rsplit(".", 1)[0] for image in failed}
    unmatched = [name for name in found.unmatched_labels if name.rsplit(".", 1)[0] not in stems | failed]
    return Labels(
        experts=found.experts,
        unmatched_labels=unmatched,
        unlabelled_images=found.unlabelled_images,
        errors=found.errors,
        n_clipped=found.n_clipped,
        convention_note=found.convention_note,
        frame=LABELLED_FRAME,
    )
