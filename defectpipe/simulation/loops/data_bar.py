"""The strip that instruments burn in below a picture: voltage, mode, magnification, a scale bar with its length."""

from __future__ import annotations

import cv2
import numpy as np

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_ROUND_NM = [a * 10.0**b for b in range(-1, 6) for a in (1, 2, 5)]


def bar_height_px(image_height_px: int, share: float) -> int:
    """Rows of a strip that takes `share` of the image; at least 16 where there is one."""
    return max(round(share * image_height_px), 16) if share > 0 else 0


def burn_in(
    pixels: np.ndarray, rows: int, pixel_size_nm: float, contrast: str, modality: str, rng: np.random.Generator
) -> None:
    """Write a strip over the lowest `rows` of an image of unsigned integers. In place.

    Its scale bar is a round number of nm, and that many nm over the pixel size long, within half a px.
    """
    if not rows:
        return
    width = pixels.shape[1]
    full = np.iinfo(pixels.dtype).max
    ground, ink = ((0, 255), (255, 0), (40, 255))[int(rng.choice(3, p=(0.6, 0.25, 0.15)))]
    strip = np.full((rows, width), ground, np.uint8)
    size, base = rows / 70, int(0.68 * rows)
    kv, mx = int(rng.choice((80, 120, 200, 300))), int(rng.choice((60, 115, 145, 225, 320, 500)))
    for share, text in ((0.02, f"{kv} kV"), (0.2, f"{contrast.upper()} {modality}"), (0.45, f"x{mx}k")):
        cv2.putText(strip, text, (int(share * width), base), _FONT, size, ink, 1, cv2.LINE_AA)
    at_most = 0.22 * width * pixel_size_nm
    length_nm = max((v for v in _ROUND_NM if v <= at_most), default=_ROUND_NM[0])
    length_px, thick = max(round(length_nm / pixel_size_nm), 1), max(rows // 12, 2)
    left, top = int(0.75 * width), int(0.78 * rows)
    text = f"{length_nm:g} nm" if length_nm < 1000 else f"{length_nm / 1000:g} um"
    cv2.putText(strip, text, (left, int(0.58 * rows)), _FONT, size, ink, 1, cv2.LINE_AA)
    strip[top : top + thick, left : left + length_px] = ink
    pixels[-rows:] = (strip.astype(np.float64) * (full / 255)).astype(pixels.dtype)
