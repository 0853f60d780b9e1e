"""What keeps a field or an object from being judged as the networks have learned it, each in a plain sentence."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.filters import threshold_otsu

from defectpipe.recognition.scale import KNOWN_PX

NO_PIXEL_SIZE = "no pixel size: sizes in px only"
# Smaller ones (longest side, px of the field) have lost what tells classes apart.
SMALLEST_PX = 12.0
# Largest thicknesses of the simulated bodies of the training, from the thinnest body to the thickest; a model's card
# may say else (`trained_thickness_nm`).
TRAINED_THICKNESS_NM = (12.0, 300.0)
# Smaller than any body of the training by far; what is that small in a picture are atomic columns.
_ATOMIC_NM = 1.0
_SATURATED_SHARE = 0.02
# Of a field: a highest value that so many pixels share is a ceiling.
_CEILING_SHARE = 5e-4
_DOUBTFUL = 0.5
# Contrast of an object over the error of its mean.
_LEAST_SIGNIFICANCE = 5.0
_NEAR_PX, _FAR_PX = 3, 9
# A field with objects has tens to thousands times as much structure; simulated empty ones have up to 1.6.
_NOISE_SIGMAS_PX, _LEAST_STRUCTURE = (3.0, 6.0, 12.0), 2.0
# Simulated fields have peaks up to 700, atomic columns from 5,000 on.
_LEAST_PERIODS, _PEAK = 8, 2000.0
_OTHER_MODALITIES = ("SEM", "FIB", "TEM")


@dataclass(frozen=True)
class FieldFacts:
    """What is said of a field before any network sees it.

    Parameters
    ----------
    refusal : str
        Why nothing is looked for in it; empty: it can be analysed.
    warnings : tuple of str
    """

    refusal: str = ""
    warnings: tuple[str, ...] = ()


def look_at_field(pixels: np.ndarray, pixel_size_nm: float | None = None, modality: str | None = None) -> FieldFacts:
    """Whether a field can be what the networks know: an annular dark-field picture of bright objects.

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
    pixel_size_nm : float, optional
    modality : str, optional
        As its file states it.
    """
    if (modality or "").upper().startswith(_OTHER_MODALITIES):
        return FieldFacts(f"the file says {modality}: the networks know annular dark-field STEM only")
    if float(np.ptp(pixels)) <= 0:
        return FieldFacts("every pixel has the same grey value")
    if is_inverted(pixels):
        return FieldFacts(
            "what stands out is dark on a bright ground: a bright-field or inverted picture, or a specimen that fills "
            "the field"
        )
    warnings = [NO_PIXEL_SIZE] if pixel_size_nm is None else []
    period = period_of(pixels)
    if period is not None:
        if pixel_size_nm is None or period < SMALLEST_PX or period * pixel_size_nm < _ATOMIC_NM:
            return FieldFacts(f"a regular pattern of {period:.3g} px fills it: a lattice or interference, no bodies")
        warnings.append(f"a regular pattern of {period:.3g} px fills it: a lattice or interference, perhaps no bodies")
    elif is_noise(pixels):
        return FieldFacts("nothing but noise")
    share = float(saturated(pixels).mean())
    if share >= _CEILING_SHARE:
        warnings.append(f"{100 * share:.2g} % of its pixels hold the highest grey value: saturated")
    return FieldFacts(warnings=tuple(warnings))


def is_inverted(pixels: np.ndarray) -> bool:
    """Whether most of a field, and of its border, is bright, with the dark parts well below the rest."""
    factor = max(1.0, max(pixels.shape) / 512)
    size = (max(1, round(pixels.shape[1] / factor)), max(1, round(pixels.shape[0] / factor)))
    small = cv2.resize(np.asarray(pixels, np.float32), size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 1.5)
    bright = small > threshold_otsu(small)
    border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    if bright.mean() < 0.55 or border.mean() < 0.6:
        return False
    # of noise, halves differ by chance; objects lie far outside what the ground spreads over
    ground, dark = small[bright], small[~bright]
    return bool(np.median(ground) - np.median(dark) > 4 * 1.4826 * np.median(abs(ground - np.median(ground))))


def is_noise(pixels: np.ndarray) -> bool:
    """Whether a field holds no more than its pixels' noise, rows and columns of another brightness aside.

    A blur leaves of white noise what its width says; of objects it leaves most.
    """
    field = np.asarray(pixels, np.float32)
    field = field - np.median(field, 1, keepdims=True)
    field -= np.median(field, 0, keepdims=True)
    second = np.array([1, -2, 1], np.float32)
    differences = cv2.sepFilter2D(field, -1, second, second)
    noise = 1.4826 * float(np.median(abs(differences - np.median(differences)))) / 6
    for sigma in _NOISE_SIGMAS_PX:
        left = float(cv2.GaussianBlur(field, (0, 0), sigma).std())
        if left > _LEAST_STRUCTURE * noise / (2 * sigma * np.sqrt(np.pi)):
            return False
    return True


def period_of(pixels: np.ndarray) -> float | None:
    """Period (px) of a regular pattern in the middle of a field, as of a lattice; None: there is none.

    A peak in the power spectrum, of at least 8 periods, far above the median of its spatial frequency. Rows and columns
    are left out: a scan's lines have them.
    """
    side = min(*pixels.shape, 512)
    top, left = ((whole - side) // 2 for whole in pixels.shape)
    part = np.asarray(pixels[top : top + side, left : left + side], float)
    window = np.hanning(side)
    power = abs(np.fft.fft2((part - part.mean()) * window[:, None] * window)) ** 2
    axis = np.fft.fftfreq(side) * side
    distance = np.hypot(axis[:, None], axis)
    ring = np.rint(distance).astype(int)
    use = (ring >= _LEAST_PERIODS) & (ring < side // 2) & (abs(axis) > 1.5)[:, None] & (abs(axis) > 1.5)
    if not use.any():
        return None
    typical = np.ones(ring.max() + 1)
    for radius in np.unique(ring[use]):
        typical[radius] = max(float(np.median(power[use & (ring == radius)])), 1e-30)
    peak = np.where(use, power / typical[ring], 0)
    highest = np.unravel_index(int(peak.argmax()), peak.shape)
    return float(side / distance[highest]) if peak[highest] > _PEAK else None


def saturated(pixels: np.ndarray) -> np.ndarray:
    """Pixels at the ceiling of the grey values, bool (height, width); none where the highest value is a rare one."""
    at_top = pixels >= pixels.max()
    return at_top if at_top.mean() >= _CEILING_SHARE else np.zeros(pixels.shape, bool)


def stand_out(pixels: np.ndarray, instances: np.ndarray, factor: float = 1.0) -> np.ndarray:
    """Which objects are brighter than what lies around them, by more than chance: bool (objects,).

    Parameters
    ----------
    pixels : ndarray, shape (height, width)
        The working picture.
    instances : ndarray of int32, shape (height, width)
        Numbered from 1 without gaps.
    factor : float
        Pixels of the field for one of `pixels`: of interpolated ones fewer count.
    """
    found = []
    for number, box in enumerate(ndimage.find_objects(instances), 1):
        part = tuple(slice(max(0, one.start - _FAR_PX), one.stop + _FAR_PX) for one in box)
        here = instances[part] == number
        far, near = (
            cv2.dilate(here.astype(np.uint8), np.ones((2 * n + 1, 2 * n + 1), np.uint8)) > 0
            for n in (_FAR_PX, _NEAR_PX)
        )
        ring = far & ~near & (instances[part] == 0)
        if ring.sum() < 20:  # it fills the field, or others lie all around
            found.append(True)
            continue
        inside, outside = pixels[part][here], pixels[part][ring]
        spread = 1.4826 * np.median(abs(outside - np.median(outside)))
        n_independent = min(here.sum(), ring.sum()) * min(1.0, factor) ** 2
        contrast = float(inside.mean() - np.median(outside))
        found.append(contrast > 0 and contrast > _LEAST_SIGNIFICANCE * spread / np.sqrt(n_independent))
    return np.array(found, bool)


def object_warnings(
    table: pd.DataFrame,
    saturated_share: np.ndarray,
    factor: float,
    limit: float,
    thickness_nm: tuple[float, float] = TRAINED_THICKNESS_NM,
) -> list[str]:
    """What to know of each object, sentences joined by ``; ``; empty: nothing.

    Parameters
    ----------
    table : DataFrame
        With the columns of `analysis.COLUMNS`, in px of the field.
    saturated_share : ndarray, shape (rows,)
        Of its pixels.
    factor : float
        Pixels of the field for one of the working scale.
    limit : float
        Of the familiarity.
    thickness_nm : (float, float)
        Smallest and largest of the training.
    """
    said = []
    for row, share in zip(table.to_dict("records"), saturated_share, strict=True):
        side = max(row["x1_px"] - row["x0_px"], row["y1_px"] - row["y0_px"])
        thickest = row["max_thickness_nm"]
        lines = []
        if row["on_edge"]:
            lines.append("cut by the border: class and dimensions are of the part that is seen")
        if not row["is_known"]:
            lines.append(
                f"unlike what the networks were trained on (familiarity {row['familiarity']:.2f}, limit {limit:.2f})"
            )
        if side < SMALLEST_PX:
            lines.append(f"only {side:.0f} px long: too small to tell its class")
        elif not KNOWN_PX[0] <= side / factor <= KNOWN_PX[1]:
            low, high = KNOWN_PX
            lines.append(f"{side / factor:.0f} px at the working scale: the networks know {low:.0f} to {high:.0f}")
        if share >= _SATURATED_SHARE:
            lines.append(f"{100 * share:.0f} % of its pixels are saturated: thickness and volume are too small")
        if row["length_nm"] < _ATOMIC_NM:
            lines.append("below 1 nm: no body as they were simulated, rather atoms")
        elif thickest < thickness_nm[0] or thickest > thickness_nm[1]:
            low, high = thickness_nm
            lines.append(f"{thickest:.3g} nm thick: the simulated bodies were {low:.3g} to {high:.3g}")
        if row["class_probability"] < _DOUBTFUL:
            lines.append("class uncertain")
        said.append("; ".join(lines))
    return said
