"""The focus score's scale, as the SEM simulator uses it."""

from defectpipe.focus_scale import (
    FULL_FRAME_PX,
    MAGNIFICATION_LIMITS,
    REFERENCE_WIDTH_MM,
    FocusLimits,
    FocusScale,
    blur_of_score,
    defocus_of_blur,
    focus_limits,
    pixel_size_nm,
    score_of_blur,
)

__all__ = [
    "FULL_FRAME_PX",
    "MAGNIFICATION_LIMITS",
    "REFERENCE_WIDTH_MM",
    "FocusLimits",
    "FocusScale",
    "blur_of_score",
    "defocus_of_blur",
    "focus_limits",
    "pixel_size_nm",
    "score_of_blur",
]
