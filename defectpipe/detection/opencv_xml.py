"""Cascades as OpenCV's XML (`cv2.CascadeClassifier` reads what is written here)."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from defectpipe.detection.boosting import Stage, Stump
from defectpipe.detection.cascade import Cascade
from defectpipe.errors import ModelError

MAX_XML_BYTES = 16 * 2**20
# An element costs a hundred times its characters.
_MAX_TAGS = 500_000
_MAX_STAGES, _MAX_STUMPS, _MAX_WINDOW_PX = 100, 20_000, 96


def cascade_to_xml(cascade: Cascade, *, hit_rate: float, false_alarm_rate: float) -> str:
    """OpenCV XML (BOOST, LBP, stumps) of a cascade; only the features that it uses are written."""
    used = sorted({stump.feature for stage in cascade.stages for stump in stage.stumps})
    index = {feature: i for i, feature in enumerate(used)}
    longest = max(len(stage.stumps) for stage in cascade.stages)
    lines = [
        '<?xml version="1.0"?>',
        "<opencv_storage>",
        "<cascade>",
        "  <stageType>BOOST</stageType>",
        "  <featureType>LBP</featureType>",
        f"  <height>{cascade.window_px}</height>",
        f"  <width>{cascade.window_px}</width>",
        "  <stageParams>",
        "    <boostType>GAB</boostType>",
        f"    <minHitRate>{hit_rate}</minHitRate>",
        f"    <maxFalseAlarm>{false_alarm_rate}</maxFalseAlarm>",
        "    <weightTrimRate>0.95</weightTrimRate>",
        "    <maxDepth>1</maxDepth>",
        f"    <maxWeakCount>{longest}</maxWeakCount></stageParams>",
        "  <featureParams>",
        "    <maxCatCount>256</maxCatCount>",
        "    <featSize>1</featSize></featureParams>",
        f"  <stageNum>{len(cascade.stages)}</stageNum>",
        "  <stages>",
    ]
    for stage in cascade.stages:
        lines += [
            "    <_>",
            f"      <maxWeakCount>{len(stage.stumps)}</maxWeakCount>",
            f"      <stageThreshold>{float(stage.threshold):.17g}</stageThreshold>",
            "      <weakClassifiers>",
        ]
        for stump in stage.stumps:
            # code c is bit c & 31 of word c >> 5; a set bit takes the first leaf
            words = np.packbits(stump.subset, bitorder="little").view("<i4")
            lines += [
                "        <_>",
                "          <internalNodes>",
                f"            0 -1 {index[stump.feature]} {' '.join(map(str, words))}</internalNodes>",
                "          <leafValues>",
                f"            {float(stump.inside):.17g} {float(stump.outside):.17g}</leafValues></_>",
            ]
        lines.append("      </weakClassifiers></_>")
    lines += ["  </stages>", "  <features>"]
    for feature in used:
        lines.append(f"    <_><rect>{' '.join(map(str, cascade.features[feature]))}</rect></_>")
    lines += ["  </features></cascade>", "</opencv_storage>", ""]
    return "\n".join(lines)


def read_cascade(path: Path, data: bytes | None = None) -> Cascade:
    """Cascade from OpenCV XML: square window, BOOST of LBP stumps.

    Parameters
    ----------
    path : Path
    data : bytes, optional
        Content of the file, where it has been read already.

    Raises
    ------
    ModelError
        The file is missing, too large, not safe XML (any document type or entity is refused), or not such a cascade.
    """
    try:
        if data is None and path.stat().st_size <= MAX_XML_BYTES:
            data = path.read_bytes()
        if data is None or len(data) > MAX_XML_BYTES or data.count(b"<") > _MAX_TAGS:
            raise ModelError(f"{path}: larger than any cascade needs ({MAX_XML_BYTES >> 20} MiB, {_MAX_TAGS} tags).")
        root = fromstring(data, forbid_dtd=True).find("cascade")
    # LookupError: an encoding that nobody knows.
    except (OSError, ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise ModelError(f"{path}: not a cascade that can be read ({error}).") from error
    if root is None:
        raise ModelError(f"{path}: holds no <cascade>; give the file that OpenCV's trainer or TrainModel wrote.")
    try:
        return _cascade(root)
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise ModelError(f"{path}: not a cascade of LBP stumps in OpenCV's format ({error}).") from error


def _cascade(root: Element) -> Cascade:
    kind, features_of = (root.findtext(name, "").strip() for name in ("stageType", "featureType"))
    if (kind, features_of) != ("BOOST", "LBP"):
        raise ValueError(f"stage type {kind!r}, feature type {features_of!r}")
    width, height = int(root.findtext("width", "")), int(root.findtext("height", ""))
    if width != height or not 3 <= width <= _MAX_WINDOW_PX:
        raise ValueError(f"window of {width} × {height}")
    features = np.array([_numbers(f.findtext("rect", ""), 4) for f in root.findall("features/_")], np.int32)
    features = features.reshape(-1, 4)
    x, y, w, h = features.T
    if ((features < 0).any(1) | (w < 1) | (h < 1) | (x + 3 * w > width) | (y + 3 * h > height)).any():
        raise ValueError("a feature lies outside the window")
    found = root.findall("stages/_")
    if not 1 <= len(found) <= _MAX_STAGES:
        raise ValueError(f"{len(found)} stages")
    stages = tuple(_stage(stage, len(features)) for stage in found)
    if sum(len(stage.stumps) for stage in stages) > _MAX_STUMPS:
        raise ValueError("too many stumps")
    return Cascade(width, features, stages)


def _stage(stage: Element, n_features: int) -> Stage:
    stumps = []
    for weak in stage.findall("weakClassifiers/_"):
        node = _numbers(weak.findtext("internalNodes", ""), 11)
        leaves = np.array(weak.findtext("leafValues", "").split(), np.float32)
        if node[:2] != [0, -1] or leaves.shape != (2,) or not np.isfinite(leaves).all():
            raise ValueError("a weak classifier is not a stump")
        if not 0 <= node[2] < n_features:
            raise ValueError("a stump names a feature that is not there")
        subset = np.unpackbits(np.array(node[3:], "<i4").view(np.uint8), bitorder="little").astype(bool)
        stumps.append(Stump(node[2], subset, leaves[0], leaves[1]))
    threshold = np.float32(stage.findtext("stageThreshold", ""))
    if not stumps or not np.isfinite(threshold):
        raise ValueError("a stage without stumps or threshold")
    return Stage(tuple(stumps), threshold)


def _numbers(text: str, n: int) -> list[int]:
    values = [int(word) for word in text.split()]
    if len(values) != n:
        raise ValueError(f"{len(values)} numbers where {n} belong")
    return values
