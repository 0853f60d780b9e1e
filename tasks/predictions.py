"""The predicted F1 of each image, from what its screening left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.plan import Plan, ResultFiles

if TYPE_CHECKING:
    from defectpipe.statistics.predicted_f1 import F1Predictor, Prediction


@dataclass(frozen=True)
class PredictionJob:
    """Everything that is needed to predict the F1 of one image."""

    screening: ResultFiles
    predictor: F1Predictor
    threshold: float
    working_pixel_size_nm: float | None
    border_margin_px: float


def prediction_jobs(plan: Plan, images: Sequence[str]) -> dict[str, PredictionJob]:
    """By image; none where the model predicts nothing."""
    predictor, threshold = plan.model.predictor, plan.threshold
    if predictor is None or threshold is None:
        return {}
    size_nm, margin_px = plan.model.working_pixel_size_nm, plan.settings.measurement.border_margin_px
    return {
        image: PredictionJob(plan.result("screening", image), predictor, threshold, size_nm, margin_px)
        for image in images
    }


def predict(job: PredictionJob, frames: Sequence[Mapping[str, Any]]) -> dict[int, Prediction | None]:
    """Predicted F1 of the frames of an image, each known by its facts."""
    from defectpipe.io.tables import read_parquet
    from defectpipe.statistics.predicted_f1 import predict_frame
    from defectpipe.statistics.scoring import BOX_COLUMNS

    screened = read_parquet(job.screening.table, [*BOX_COLUMNS, "screening_score", "frame"])
    size_nm, margin_px = job.working_pixel_size_nm, job.border_margin_px
    return {
        facts["frame"]: predict_frame(
            job.predictor, screened[screened["frame"] == facts["frame"]], facts, job.threshold, size_nm, margin_px
        )
        for facts in frames
    }
