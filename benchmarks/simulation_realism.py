"""How far simulated fields of loops are from real ones: grey values, spectrum, noise, sizes and contrast of loops.

Usage: simulation_realism.py [PRESET ...]   (default: fecral 316l)

Twenty simulated images (seed 0) of each preset against the real set that it imitates, beside the same distances between
two halves of the real set, the mean of 20 random halvings by family (316L: by image): what two sets of real images
differ by. Writes results/simulation-realism.json, and a figure for each preset into results/pictures (ignored by git).

Of the FeCrAl set only the families of folds 2, 3 and 4 are looked at, eight images of each at most, so that the others
can test what is trained on simulated images that were tuned by these figures. Images of 2048² px are halved to 1024².
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass

import cv2
import numpy as np
from fecral_data import RESULTS, data_folder
from provenance import provenance
from scipy import ndimage
from scipy.stats import wasserstein_distance

from defectpipe.boxes import convert, touches_border
from defectpipe.io.folder import list_images
from defectpipe.io.labels import read_label_folder
from defectpipe.io.micrographs import read_micrographs
from defectpipe.io.tables import write_json
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS

N_SIMULATED, SEED, N_HALVINGS = 20, 0, 20
FOLDS, PER_FAMILY = ("2", "3", "4"), 8
PATCH_PX, LAGS = 48, 6
FREQUENCIES = np.geomspace(1 / 128, 0.5, 25)  # cycles per px
UNITS = {
    "grey_values": "Wasserstein, grey levels of 255",
    "grey_values_about_median": "Wasserstein, grey levels of 255",
    "power_spectrum": "RMS, dB",
    "noise_autocorrelation": "RMS, lags 1 to 6 along x and y",
    "noise_std": "Wasserstein, % of the mean grey",
    "loop_size": "Wasserstein, px",
    "loop_contrast": "Wasserstein, % of the background",
    "loops_per_image": "Wasserstein",
}


@dataclass(frozen=True)
class Seen:
    """What is compared of one image. Sizes and contrast: one value a labelled loop that no border cuts."""

    family: str
    histogram: np.ndarray
    about_median: np.ndarray
    spectrum_db: np.ndarray
    autocorrelation: np.ndarray
    noise_std: np.ndarray
    size_px: np.ndarray
    contrast: np.ndarray
    n_loops: int


def look(grey: np.ndarray, boxes: np.ndarray, family: str, solid: bool) -> Seen:
    """Properties of an image of 8 bit with the tight boxes of its loops."""
    histogram = np.bincount(grey.ravel(), minlength=256) / grey.size
    pixels = grey.astype(np.float32)
    noise, autocorrelation = _noise(pixels)
    whole = boxes[~touches_border(boxes, grey.shape)]
    return Seen(
        family=family,
        histogram=histogram,
        about_median=np.bincount((grey.astype(int) - int(np.median(grey)) + 255).ravel(), minlength=511) / grey.size,
        spectrum_db=_spectrum_db(pixels),
        autocorrelation=autocorrelation,
        noise_std=noise,
        size_px=(whole[:, 2:] - whole[:, :2]).max(1),
        contrast=np.array([100 * _contrast(pixels, box, solid) for box in whole]),
        n_loops=len(boxes),
    )


def _spectrum_db(pixels: np.ndarray) -> np.ndarray:
    """Radial mean of the power of the image over its mean grey, in dB; of parts of 512² px under a Hann window."""
    window = np.outer(np.hanning(512), np.hanning(512))
    f = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None])
    bins = np.digitize(f.ravel(), FREQUENCIES)
    total = 0.0
    for y in range(0, pixels.shape[0] - 511, 512):
        for x in range(0, pixels.shape[1] - 511, 512):
            part = pixels[y : y + 512, x : x + 512] / pixels.mean()
            total = total + np.abs(np.fft.rfft2((part - part.mean()) * window)) ** 2
    power = np.bincount(bins, np.ravel(total), len(FREQUENCIES) + 1) / np.maximum(
        np.bincount(bins, minlength=len(FREQUENCIES) + 1), 1
    )
    return 10 * np.log10(power[1:-1] / (pixels.size / 512**2))


def _noise(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation in % of the grey in the flattest tenth of the patches, and their autocorrelation x, then y."""
    smooth = cv2.GaussianBlur(pixels, (0, 0), 4)
    starts = [range(0, n - PATCH_PX + 1, PATCH_PX) for n in pixels.shape]
    places = [(slice(y, y + PATCH_PX), slice(x, x + PATCH_PX)) for y in starts[0] for x in starts[1]]
    flat = sorted(places, key=lambda part: float(smooth[part].std() / max(smooth[part].mean(), 1)))
    y, x = np.mgrid[:PATCH_PX, :PATCH_PX] - 0.5 * (PATCH_PX - 1)
    design = np.stack([np.ones(x.size), x.ravel(), y.ravel(), (x * y).ravel(), (x**2).ravel(), (y**2).ravel()], 1)
    fit = design @ np.linalg.pinv(design)
    stds, correlations = [], []
    for part in flat[: max(len(flat) // 10, 4)]:
        values = pixels[part].ravel().astype(float)
        noise = (values - fit @ values).reshape(PATCH_PX, PATCH_PX)
        if noise.std() > 0:
            stds.append(100 * noise.std() / values.mean())
            x_lags = [(noise[:, k:] * noise[:, :-k]).mean() for k in range(1, LAGS + 1)]
            y_lags = [(noise[k:] * noise[:-k]).mean() for k in range(1, LAGS + 1)]
            correlations.append(np.array(x_lags + y_lags) / noise.var())
    return np.array(stds), np.mean(correlations, 0)


def _contrast(pixels: np.ndarray, box: np.ndarray, solid: bool) -> float:
    """1 less mean grey of the rim (of a solid loop: of the body) over that of the surroundings, from the box alone."""
    x0, y0, x1, y1 = box
    half_x, half_y = 0.5 * max(x1 - x0, 4), 0.5 * max(y1 - y0, 4)
    rows, columns = (
        slice(max(int(c - 1.7 * h), 0), int(c + 1.7 * h) + 2)
        for c, h in ((0.5 * (y0 + y1), half_y), (0.5 * (x0 + x1), half_x))
    )
    part = pixels[rows, columns]
    y, x = np.ogrid[rows.start : rows.start + part.shape[0], columns.start : columns.start + part.shape[1]]
    radius = np.hypot((x - 0.5 * (x0 + x1)) / half_x, (y - 0.5 * (y0 + y1)) / half_y)
    dark = radius <= 0.8 if solid else np.abs(radius - 1) <= 0.15
    return 1 - float(part[dark].mean() / max(np.median(part[(radius > 1.35) & (radius < 1.7)]), 1))


def distances(one: list[Seen], other: list[Seen]) -> dict[str, float]:
    """Every distance between two sets of images; histograms, spectra and autocorrelations are means over images."""
    a, b = (
        {name: np.array([getattr(s, name) for s in part]) for name in ("histogram", "about_median", "n_loops")}
        | {name: np.mean([getattr(s, name) for s in part], 0) for name in ("spectrum_db", "autocorrelation")}
        | {name: np.concatenate([getattr(s, name) for s in part]) for name in ("noise_std", "size_px", "contrast")}
        for part in (one, other)
    )

    def apart(name: str) -> float:
        return float(wasserstein_distance(a[name], b[name]))

    def histograms(name: str) -> float:
        return float(np.abs(np.cumsum(a[name].mean(0) - b[name].mean(0))).sum())

    return {
        "grey_values": histograms("histogram"),
        "grey_values_about_median": histograms("about_median"),
        "power_spectrum": float(np.sqrt(np.mean((a["spectrum_db"] - b["spectrum_db"]) ** 2))),
        "noise_autocorrelation": float(np.sqrt(np.mean((a["autocorrelation"] - b["autocorrelation"]) ** 2))),
        "noise_std": apart("noise_std"),
        "loop_size": apart("size_px"),
        "loop_contrast": apart("contrast"),
        "loops_per_image": apart("n_loops"),
    }


def halves(real: list[Seen]) -> dict[str, float]:
    """Mean distances between two random halves of the families."""
    rng = np.random.default_rng(SEED)
    families = sorted({s.family for s in real})
    found = []
    for _ in range(N_HALVINGS):
        first = set(rng.permutation(families)[: len(families) // 2])
        found.append(distances([s for s in real if s.family in first], [s for s in real if s.family not in first]))
    return {name: float(np.mean([f[name] for f in found])) for name in UNITS}


def real_fecral() -> list[Seen]:
    """Images of the development families, up to eight of each, evenly spaced in their series."""
    folder = data_folder()
    with (folder / "images.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] in FOLDS]
    chosen = {}
    for family in sorted({row["family"] for row in rows}):
        names = [row["image"] for row in rows if row["family"] == family]
        step = -(-len(names) // PER_FAMILY)
        chosen |= dict.fromkeys(names[::step], family)
    frames = {
        f.image: read_micrographs(f, image=f.image)[0] for f in list_images(folder / "images") if f.image in chosen
    }
    labels = read_label_folder(folder / "boxes", [(i, m.shape) for i, m in frames.items()], label_format=None)
    [boxes] = labels.experts.values()
    seen = []
    for image, family in sorted(chosen.items()):
        grey, scale = frames[image].pixels, 1
        if grey.shape[0] > 1024:
            grey, scale = cv2.resize(grey, (1024, 1024), interpolation=cv2.INTER_AREA), grey.shape[0] / 1024
        tight = convert(boxes[image][["x0_px", "y0_px", "x1_px", "y1_px"]].to_numpy(), "padded", "tight") / scale
        seen.append(look(grey, tight, family, solid=False))
    return seen


def real_316l() -> list[Seen]:
    """All ten images, each for itself."""
    folder = data_folder().parent / "316l-loops"
    if not folder.is_dir():
        sys.exit(f"The 316L set is not in {folder}.")
    frames = {f.image: read_micrographs(f, image=f.image)[0] for f in list_images(folder / "images")}
    found = read_label_folder(folder / "labels.coco.json", [(i, m.shape) for i, m in frames.items()])
    [boxes] = found.experts.values()
    columns = ["x0_px", "y0_px", "x1_px", "y1_px"]
    return [look(m.grey8(), boxes[i][columns].to_numpy(), i, solid=True) for i, m in sorted(frames.items())]


def simulated(name: str) -> list[Seen]:
    """The first images of a data set of that preset."""
    fields = (simulate_field(PRESETS[name], SEED, i) for i in range(N_SIMULATED))
    columns = ["x0_px", "y0_px", "x1_px", "y1_px"]
    solid = name == "316l"
    return [look(f.micrograph.pixels, f.labels[columns].to_numpy(), str(i), solid) for i, f in enumerate(fields)]


def draw(name: str, real: list[Seen], made: list[Seen]) -> None:
    """One panel a property, real and simulated."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(18, 8), layout="constrained")
    panels = axes.ravel()
    for label, part in (("real", real), ("simulated", made)):
        panels[0].plot(ndimage.gaussian_filter1d(np.mean([s.histogram for s in part], 0), 1), label=label)
        panels[1].plot(np.arange(-255, 256), np.mean([s.about_median for s in part], 0))
        spectrum = np.mean([s.spectrum_db for s in part], 0)
        panels[2].semilogx(np.sqrt(FREQUENCIES[1:] * FREQUENCIES[:-1]), spectrum)
        panels[3].plot(np.mean([s.autocorrelation for s in part], 0), "o-")
        for panel, values in (
            (panels[4], np.concatenate([s.noise_std for s in part])),
            (panels[5], np.concatenate([s.size_px for s in part])),
            (panels[6], np.concatenate([s.contrast for s in part])),
            (panels[7], np.array([s.n_loops for s in part])),
        ):
            panel.plot(np.sort(values), np.linspace(0, 1, len(values)))
    titles = ("grey values", "grey values less their median", "power, dB; cycles/px", "autocorrelation: x 1-6, y 1-6")
    titles += ("noise, % of grey", "long side of a loop's box, px", "contrast of a loop, %", "loops an image")
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title)
    panels[0].legend()
    (RESULTS / "pictures").mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULTS / "pictures" / f"simulation-realism-{name}.png", dpi=70)


if __name__ == "__main__":
    path = RESULTS / "simulation-realism.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    results |= (said := provenance("make bench-realism", threads="one thread"))
    for name in sys.argv[1:] or ("fecral", "316l"):
        cv2.setNumThreads(1)
        real, made = {"fecral": real_fecral, "316l": real_316l}[name](), simulated(name)
        apart, yardstick = distances(real, made), halves(real)
        results[name] = {
            "date": said["date"],
            "settings_sha256": PRESETS[name].sha256(),
            "n_real": len(real),
            "n_simulated": len(made),
            "properties": {
                key: {
                    "real_to_simulated": round(apart[key], 3),
                    "real_to_real": round(yardstick[key], 3),
                    "unit": unit,
                }
                for key, unit in UNITS.items()
            },
        }
        print(
            f"{name}: {len(real)} real images, {len(made)} simulated\n| property | real to simulated | real to real |"
        )
        for key, unit in UNITS.items():
            print(f"| {key} ({unit}) | {apart[key]:.3g} | {yardstick[key]:.3g} |")
        draw(name, real, made)
    write_json(results, path)
