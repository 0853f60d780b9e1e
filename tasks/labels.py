"""The labels of a run, read once, matched with the images that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

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


def measured_frames(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """What is known of the frames of each image that was measured."""
    stamps = {image: read_stamp(plan.result("measurement", image).stamp) for image in plan.images}
    return {image: stamp.frames for image, stamp in stamps.items() if stamp is not None and stamp.frames}


def first_shapes(frames: Mapping[str, list[dict[str, Any]]]) -> list[tuple[str, tuple[int, int]]]:
    """Each image with the height and width of its first frame."""
    return [(image, (of[0]["height_px"], of[0]["width_px"])) for image, of in frames.items()]


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

    shapes = first_shapes(measured_frames(plan))
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
