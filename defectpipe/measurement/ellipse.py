"""An ellipse through contour points, with the box it must agree with as a prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BoxPrior:
    """How far an ellipse may stray from its box: standard deviations of the box, as fractions of its half sides.

    Attributes
    ----------
    centre : float
        Of the centre's offset.
    log_side : float
        Of the logarithm of each side.
    tilt : float
        Of atanh of the correlation between x and y of the ellipse; a box says nothing about it.
    """

    centre: float = 0.14
    log_side: float = 0.08
    tilt: float = 1.0


@dataclass(frozen=True)
class Fit:
    """Ellipse in the frame of the box (centre 0, half sides 1).

    Attributes
    ----------
    parameters : ndarray, shape (5,)
        Centre x, centre y, log half width, log half height, atanh of the correlation.
    residuals : ndarray
        Of each point: its elliptic radius minus 1.
    weights : ndarray
        The weights that the points had in the end.
    """

    parameters: np.ndarray
    residuals: np.ndarray
    weights: np.ndarray


def fit_ellipse(
    u: np.ndarray,
    v: np.ndarray,
    weights: np.ndarray,
    prior: BoxPrior,
    strength: float,
    cutoff: float,
    start: np.ndarray,
) -> Fit:
    """Most probable ellipse given weighted contour points and the box (Gauss-Newton, Cauchy weights).

    Parameters
    ----------
    u, v : ndarray, shape (n,)
        Contour points in the frame of the box.
    weights : ndarray, shape (n,)
        Trust in each point, 0 to leave it out; their sum over n scales the trust in all.
    prior : BoxPrior
    strength : float
        Independent points that the contour counts for, over the variance of their elliptic radius.
    cutoff : float
        Residual at which a point's weight is halved.
    start : ndarray, shape (5,)
        Parameters to begin from.

    Returns
    -------
    Fit
    """
    precision = 1.0 / np.array([prior.centre, prior.centre, prior.log_side, prior.log_side, prior.tilt]) ** 2
    p = np.asarray(start, float).copy()
    for _ in range(6):
        residual, jacobian = elliptic_residuals(p, u, v)
        w = weights / (1 + (residual / cutoff) ** 2)
        gain = strength / len(u) * w
        normal = (jacobian * gain[:, None]).T @ jacobian + np.diag(precision)
        step = np.linalg.solve(normal, -(jacobian.T @ (gain * residual)) - precision * p)
        p += np.clip(step, -0.3, 0.3)
        if np.abs(step).max() < 1e-3:
            break
    residual, _ = elliptic_residuals(p, u, v)
    return Fit(p, residual, weights / (1 + (residual / cutoff) ** 2))


def elliptic_residuals(p: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Elliptic radius minus 1 of points, and its derivatives by the five parameters of `Fit`.

    Returns
    -------
    residuals : ndarray, shape (n,)
    jacobian : ndarray, shape (n, 5)
    """
    half_u, half_v, rho = np.exp(p[2]), np.exp(p[3]), np.tanh(p[4])
    q = max(1 - rho * rho, 1e-6)
    z, t = (u - p[0]) / half_u, (v - p[1]) / half_v
    radius = np.sqrt(np.maximum((z * z - 2 * rho * z * t + t * t) / q, 1e-12))
    by_z, by_t = (z - rho * t) / (q * radius), (t - rho * z) / (q * radius)
    jacobian = np.empty((len(z), 5))
    jacobian[:, 0] = -by_z / half_u
    jacobian[:, 1] = -by_t / half_v
    jacobian[:, 2] = -by_z * z
    jacobian[:, 3] = -by_t * t
    jacobian[:, 4] = rho * radius - z * t / radius
    return radius - 1, jacobian


def onto_ellipse(p: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (2, n) moved along their radii onto the ellipse with the parameters of `Fit`."""
    residuals, _ = elliptic_residuals(p, points[0], points[1])
    return p[:2, None] + (points - p[:2, None]) / (1 + residuals)


def axes_of(half_width: float, half_height: float, correlation: float) -> tuple[float, float, float]:
    """Full major axis, full minor axis and angle of the ellipse inscribed in a box with that correlation of x and y.

    Returns
    -------
    major, minor : float
        In the unit of the half sides.
    angle_deg : float
        From +x, counter-clockwise as seen (image rows run down), 0 <= angle < 180.
    """
    xx, yy, xy = half_width**2, half_height**2, correlation * half_width * half_height
    mean, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    # the minus: y runs down in the image, up in the angle
    angle = np.rad2deg(0.5 * np.arctan2(-2 * xy, xx - yy)) % 180.0
    return 2 * float(np.sqrt(mean + spread)), 2 * float(np.sqrt(max(mean - spread, 0.0))), float(angle)
