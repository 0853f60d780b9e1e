"""Random views of the screener's samples."""

from __future__ import annotations

import cv2
import numpy as np

from defectpipe.screening.samples import Samples, to_float


def random_view(
    crop: np.ndarray, target: np.ndarray, crop_px: int, candidate_px: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One sample scaled, shifted, turned, mirrored, with other contrast, brightness, sharpness and noise.

    Parameters
    ----------
    crop : ndarray of float32, shape (stored_px, stored_px)
    target : ndarray, shape (4,)
        See `samples.Samples`.
    crop_px : int
        Side of the view.
    candidate_px : float
        Side of the candidate in the stored crop.
    rng : Generator

    Returns
    -------
    view : ndarray of float32, shape (crop_px, crop_px)
    target : ndarray, shape (4,)
    """
    scale = np.exp(rng.uniform(-0.22, 0.22))
    shift = rng.normal(0, 0.08, 2)  # in units of the candidate's side
    first = (len(crop) - 1) / 2 - scale * (crop_px - 1) / 2
    view = cv2.warpAffine(
        crop,
        np.array(
            [[scale, 0, first + shift[0] * candidate_px], [0, scale, first + shift[1] * candidate_px]], np.float32
        ),
        (crop_px, crop_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    dx, dy = (target[:2] - shift) / scale
    width, height = target[2:] - np.log(scale)
    if rng.random() < 0.5:
        view, dx = view[:, ::-1], -dx
    if rng.random() < 0.5:
        view, dy = view[::-1], -dy
    if rng.random() < 0.5:
        view, dx, dy, width, height = view.T, dy, dx, height, width
    if rng.random() < 0.25:
        view = cv2.GaussianBlur(np.ascontiguousarray(view), (0, 0), rng.uniform(0.4, 1.2))
    view = view * rng.uniform(0.65, 1.45) + rng.uniform(-0.3, 0.3)
    if rng.random() < 0.35:
        view = view + rng.normal(0, rng.uniform(0.02, 0.25), view.shape)
    return view.astype(np.float32), np.array([dx, dy, width, height], np.float32)


class Batches:
    """Endless random batches; negatives that the network still takes for loops are drawn more often.

    Parameters
    ----------
    samples : Samples
    crop_px : int
    context : float
        As the network sees the candidate.
    size : int
        Samples a batch, two in five of them loops.
    rng : Generator
    n_classes : int
        Classes to be told apart, each drawn in proportion to the square root of its frequency; 0 where there is one.
    """

    def __init__(
        self,
        samples: Samples,
        crop_px: int,
        context: float,
        size: int,
        rng: np.random.Generator,
        n_classes: int = 0,
    ) -> None:
        self._samples, self._crop_px, self._size, self._rng = samples, crop_px, size, rng
        self._candidate_px, self._n_classes = crop_px / context, n_classes
        self._loops = np.flatnonzero(samples.is_loop)
        of_class = [self._loops[samples.classes[self._loops] == number] for number in range(n_classes)]
        self._by_class = [rows for rows in of_class if len(rows)]
        self._shares = np.cumsum([np.sqrt(len(rows)) for rows in self._by_class])
        self.others = np.flatnonzero(~samples.is_loop)
        self._cumulated = np.arange(1, len(self.others) + 1, dtype=float)

    def weigh_others(self, weights: np.ndarray) -> None:
        """Draw each sample that is not a loop in proportion to its weight."""
        self._cumulated = np.cumsum(weights.astype(float))

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """Views (size, crop_px, crop_px, 1), and rows of is-loop and the four box targets (size, 5).

        Where there are several classes, a sixth column has the number of the class.
        """
        views = np.empty((self._size, self._crop_px, self._crop_px, 1), np.float32)
        answers = np.zeros((self._size, 6 if self._n_classes else 5), np.float32)
        n_loops = self._size * 2 // 5 if len(self.others) else self._size
        for k in range(self._size):
            if k < n_loops:
                rows = self._rows()
                i = rows[self._rng.integers(len(rows))]
            else:
                drawn = np.searchsorted(self._cumulated, self._rng.random() * self._cumulated[-1], side="right")
                i = self.others[min(int(drawn), len(self.others) - 1)]
            crop = to_float(self._samples.crops[i])
            view, target = random_view(crop, self._samples.targets[i], self._crop_px, self._candidate_px, self._rng)
            views[k, ..., 0] = view
            answers[k, 0] = self._samples.is_loop[i]
            answers[k, 1:5] = target
            if self._n_classes:
                answers[k, 5] = self._samples.classes[i]
        return views, answers

    def _rows(self) -> np.ndarray:
        """The loops of a class that is drawn; without classes, all."""
        if not self._n_classes:
            return self._loops
        drawn = int(np.searchsorted(self._shares, self._rng.random() * self._shares[-1], side="right"))
        return self._by_class[min(drawn, len(self._by_class) - 1)]
