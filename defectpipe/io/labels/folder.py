"""Labels of a whole folder of images: which file belongs to which image, and who made it."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from defectpipe.errors import LabelError
from defectpipe.io.labels.outlines import Outline, outlines_table
from defectpipe.io.labels.recognise import (
    JSON,
    PICTURES,
    REFUSED,
    ROIS,
    SUFFIXES,
    TEXTS,
    check_choices,
    choose_format,
    is_padded,
    is_sheet,
    possible_formats,
    read_outlines,
    read_sheet,
)
from defectpipe.io.labels.sheets import match_entries
from defectpipe.io.labels.sources import LabelFile
from defectpipe.io.labels.yolo import CLASS_NAMES

SINGLE = "labels"


@dataclass(frozen=True)
class Marks:
    """Frame and loop number of every row of a table of labels, and whether its format knows frames at all."""

    frames: tuple[int, ...]
    loop_ids: tuple[int | None, ...]
    knows_frames: bool


@dataclass
class LabelFolder:
    """Labels of a folder of images.

    Parameters
    ----------
    experts : dict
        Expert -> image -> table of `LABEL_COLUMNS` (tight boxes). One set of labels has the name ``"labels"``.
        An image without a label file is absent; one with an empty label file has an empty table.
    unmatched_labels : list of str
        Label files, or entries of one, that are of none of the images.
    unlabelled_images : list of str
        Images that no label file is of.
    errors : dict
        Label file (or ``file: image``) -> why it cannot be used, in one sentence.
    refused_images : dict
        Image -> the same sentence, for the images whose labels it costs.
    files : dict
        Expert -> image -> the file that its labels come from.
    n_clipped : int
        Boxes cut at the border, on request.
    convention_note : str
        Which formats were read, and what was done to their boxes.
    marks : dict
        Image -> what its file says beside the table, if that was asked for.
    """

    experts: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    unmatched_labels: list[str] = field(default_factory=list)
    unlabelled_images: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    refused_images: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Path]] = field(default_factory=dict)
    n_clipped: int = 0
    convention_note: str = ""
    marks: dict[str, Marks] = field(default_factory=dict)


def read_label_folder(
    labels: Path,
    images: Sequence[tuple[str, tuple[int, int]]],
    *,
    label_format: str | None = None,
    box_convention: str = "auto",
    clip: bool = False,
    marks: bool = False,
) -> LabelFolder:
    """Read the labels of a folder of images.

    Parameters
    ----------
    labels : Path
        A folder that mirrors the images (``a/b.tif`` -> ``a/b.txt`` or ``a/b.tif.txt``); or one COCO, VIA or CSV file,
        or a folder with such a file (of several, the one named ``labels``); or a folder of either kind for each expert.
        Pictures in it are masks, unless there are labels of another kind, which they then are the images of.
    images : sequence of (str, (int, int))
        Path relative to the image folder, with ``/``; height and width in px.
    label_format, box_convention, clip
        As for `read_labels`.
    marks : bool
        Whether the labels may be of any frame, and say which, and which loop of a run they were: `LabelFolder.marks`.

    Returns
    -------
    LabelFolder
        A broken file or row costs its image's labels only, and is listed.

    Raises
    ------
    LabelError
        The labels are not there at all, or the format or convention is unknown.
    """
    check_choices(label_format, box_convention)
    reader = _Reader(dict(images), label_format, box_convention, clip, marks)
    labels = Path(labels)
    if labels.is_file():
        reader.read_file(labels)
    elif labels.is_dir():
        reader.read_tree(labels)
    else:
        raise LabelError(f"{labels}: there is no such file or folder of labels.")
    return reader.finished()


class _Reader:
    def __init__(
        self,
        images: dict[str, tuple[int, int]],
        label_format: str | None,
        box_convention: str,
        clip: bool,
        marks: bool = False,
    ) -> None:
        self.images = images
        self.label_format = label_format
        self.box_convention = box_convention
        self.clip = clip
        self.marks = marks
        self.result = LabelFolder()
        self.formats: Counter[str] = Counter()
        self.used: set[str] = set()
        # A label file's stem -> the images that it is of: with the extension kept, or not.
        self.by_stem: dict[str, list[str]] = {}
        for image in images:
            for stem in {_normal(image), _normal(image.removesuffix(PurePosixPath(image).suffix))}:
                self.by_stem.setdefault(stem, []).append(image)

    def read_file(self, path: Path) -> None:
        file = LabelFile(path)
        among = self._possible(file)
        if file.name in self.result.errors:
            return
        if self._is_sheet(file, among):
            self._read_sheet(SINGLE, file, among)
        else:
            self._read_mirror(SINGLE, {_stem(file.name): [(file, among)]})
        if not self.used and not self.result.errors:
            self.result.unmatched_labels.append(file.name)

    def read_tree(self, root: Path) -> None:
        listed = [(file, among) for file in _listing(root) if (among := self._listed(file)) is not None]
        if self.label_format is None and any(file.suffix not in PICTURES for file, _ in listed):
            listed = [(file, among) for file, among in listed if file.suffix not in PICTURES]
        if not self._read_set(SINGLE, listed, ""):
            for expert in sorted({file.name.split("/")[0] for file, _ in listed if "/" in file.name}):
                self._read_set(expert, listed, f"{expert}/")
            if len(self.result.experts) == 1:
                self.result.experts = {SINGLE: next(iter(self.result.experts.values()))}
                self.result.files = {SINGLE: next(iter(self.result.files.values()))}
        self.result.unmatched_labels.extend(file.name for file, _ in listed if file.name not in self.used)

    def finished(self) -> LabelFolder:
        result = self.result
        labelled = {image for tables in result.experts.values() for image in tables} | set(result.refused_images)
        result.unlabelled_images = sorted(image for image in self.images if image not in labelled)
        result.unmatched_labels.sort()
        result.convention_note = self._note()
        return result

    def _listed(self, file: LabelFile) -> set[str] | None:
        # What is no label file (a README, pixel_sizes.csv) is passed over, unless it has an image's name.
        of_image = any(_stem(tail) in self.by_stem for tail in (file.name, file.name.partition("/")[2]))
        if file.path.name == CLASS_NAMES and not of_image:
            return None
        stated = self.label_format
        if stated is not None and file.suffix not in SUFFIXES[stated]:
            return None
        if of_image and (stated is not None or file.suffix not in PICTURES):
            return self._possible(file)
        try:
            among = possible_formats(file)
        except LabelError as error:
            if file.suffix in JSON:
                self.result.errors[file.name] = str(error)
            return None
        return None if stated is not None and among and stated not in among else among

    def _possible(self, file: LabelFile) -> set[str]:
        if self.label_format is not None:
            return set()
        try:
            return possible_formats(file)
        except LabelError as error:
            self.result.errors[file.name] = str(error)
            return set()

    def _is_sheet(self, file: LabelFile, among: set[str]) -> bool:
        try:
            return is_sheet(file, among if self.label_format is None else {self.label_format})
        except LabelError:
            # Reading it says what is wrong.
            return False

    def _read_set(self, expert: str, listed: list[tuple[LabelFile, set[str]]], prefix: str) -> bool:
        # One person's labels: a file for each image, else one file for all.
        mirrored: dict[str, list[tuple[LabelFile, set[str]]]] = {}
        sheets = []
        for file, among in listed:
            if not file.name.startswith(prefix):
                continue
            inner = file.name[len(prefix) :]
            if _stem(inner) in self.by_stem:
                mirrored.setdefault(_stem(inner), []).append((file, among))
            elif "/" not in inner and self._is_sheet(file, among):
                sheets.append((file, among))
        if mirrored:
            self._read_mirror(expert, mirrored)
            return True
        if len(sheets) > 1:
            named = [(file, among) for file, among in sheets if file.path.name.split(".")[0] == "labels"]
            if len(named) != 1:
                names = ", ".join(file.name for file, _ in sheets)
                for file, _ in sheets:
                    self.result.errors[file.name] = f"{names}: each could hold the labels; name one of them instead."
                    self.used.add(file.name)
                return False
            sheets = named
        return bool(sheets) and self._read_sheet(expert, *sheets[0])

    def _read_mirror(self, expert: str, mirrored: dict[str, list[tuple[LabelFile, set[str]]]]) -> None:
        by_image: dict[str, list[tuple[LabelFile, set[str]]]] = {}
        doubtful: set[str] = set()
        for stem, files in mirrored.items():
            of_images = self.by_stem.get(stem, [])
            for image in of_images:
                by_image.setdefault(image, []).extend(files)
            if len(of_images) > 1:
                doubtful.update(of_images)
                for file, _ in files:
                    name = PurePosixPath(file.name).suffix
                    self._refuse(
                        file.name,
                        of_images,
                        f"{file.name}: it could be of {' or '.join(sorted(of_images))}; keep the image's extension in "
                        f"its name, as in {of_images[0]}{name}.",
                    )
        known = {next(iter(among)) for files in mirrored.values() for _, among in files if len(among) == 1}
        for image, files in sorted(by_image.items()):
            self.used.update(file.name for file, _ in files)
            if len(files) > 1:
                names = " and ".join(sorted(file.name for file, _ in files))
                self._refuse(files[0][0].name, [image], f"{names}: all are of {image}; leave one.")
            elif image not in doubtful:
                self._read_one(expert, image, files[0][0], files[0][1], known)

    def _read_one(self, expert: str, image: str, file: LabelFile, among: set[str], known: set[str]) -> None:
        if file.name in self.result.errors:
            self._refuse(file.name, [image], self.result.errors[file.name])
            return
        try:
            chosen = choose_format(file, among, self.label_format, known)
            outlines = []
            if chosen is not None:
                outlines = read_outlines(
                    file, self.images[image], chosen, stated=self.label_format is not None, frames=self.marks
                )
            self._keep(expert, image, file, outlines, chosen)
        except LabelError as error:
            self._refuse(file.name, [image], str(error))

    def _read_sheet(self, expert: str, file: LabelFile, among: set[str]) -> bool:
        self.used.add(file.name)
        try:
            chosen = choose_format(file, among, self.label_format, set())
            entries = {} if chosen is None else read_sheet(file, chosen, frames=self.marks)
            if set(entries) == {""}:
                raise LabelError(f"{file.name}: it has no column 'image' that says which image a row is of.")
        except LabelError as error:
            self.result.errors[file.name] = str(error)
            return True
        matched, doubts = match_entries(list(entries), list(self.images))
        for name, doubt in doubts.items():
            self.result.errors[f"{file.name}: {name}"] = f"{file.name}: {doubt}"
        self.result.unmatched_labels.extend(
            f"{file.name}: {name}" for name in entries if name not in matched and name not in doubts
        )
        for name, image in matched.items():
            try:
                outlines = entries[name].checked(f"{file.name}, {name}", self.images[image])
                self._keep(expert, image, file, outlines, chosen)
            except LabelError as error:
                self._refuse(f"{file.name}: {name}", [image], str(error))
        return True

    def _keep(self, expert: str, image: str, file: LabelFile, outlines: list[Outline], chosen: str | None) -> None:
        padded = chosen is not None and is_padded(chosen, self.box_convention)
        table, n_clipped = outlines_table(outlines, self.images[image], padded=padded, clip=self.clip)
        self.result.experts.setdefault(expert, {})[image] = table
        self.result.files.setdefault(expert, {})[image] = file.path
        self.result.n_clipped += n_clipped
        if self.marks:
            frames, loop_ids = (tuple(getattr(o, name) for o in outlines) for name in ("frame", "loop_id"))
            self.result.marks[image] = Marks(frames, loop_ids, chosen in (None, "rois", "csv", "imagej"))
        if chosen is not None:
            bare = any(outline.ellipse is None for outline in outlines)
            self.formats[f"{chosen}{' (padding undone)' if bare and padded else ' (tight boxes)' if bare else ''}"] += 1

    def _refuse(self, file: str, images: list[str], sentence: str) -> None:
        self.result.errors[file] = sentence
        for image in images:
            self.result.refused_images[image] = sentence

    def _note(self) -> str:
        parts = [f"{name}: {count} images" for name, count in sorted(self.formats.items())]
        if self.result.n_clipped:
            parts.append(f"{self.result.n_clipped} boxes cut at the border")
        return "; ".join(parts)


def _listing(root: Path) -> list[LabelFile]:
    # Links are not followed; hidden files and folders are nobody's labels.
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            known = path.suffix.lower() in TEXTS | JSON | ROIS | PICTURES | REFUSED
            if known and not name.startswith(".") and not path.is_symlink():
                files.append(LabelFile(path, path.relative_to(root).as_posix()))
    return files


def _stem(name: str) -> str:
    return _normal(name.removesuffix(PurePosixPath(name).suffix))


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)
