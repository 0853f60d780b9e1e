"""A look at a folder before anything is computed: headers, names, labels, room for the results. It writes nothing."""

from __future__ import annotations

import os
import shutil
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from defectpipe.errors import LabelError, MicrographError
from defectpipe.io.folder import FolderListing, ImageFile, shown
from defectpipe.io.labels import LabelFolder, read_label_folder
from defectpipe.io.micrographs import MAX_PIXELS, Header, read_header
from defectpipe.io.micrographs.pixel_sizes import FILE_NAME, entry_for

# What a frame leaves in the output folder at the least: tables and stamps of the stages (four blocks of 4 KiB and
# more), and a JPEG of about 0.1 bytes a pixel.
_BYTES_PER_FRAME = 32 * 1024
_BYTES_PER_PIXEL = 0.1
_NAMED = 3


@dataclass(frozen=True)
class Room:
    """Room for the results.

    Parameters
    ----------
    output_dir : Path
    free_bytes : int
        Free on its file system for this user.
    needed_bytes : int
        What the results will take at the least, less what is there already.
    obstacle : str
        Why results cannot be written; empty if they can.
    """

    output_dir: Path
    free_bytes: int
    needed_bytes: int
    obstacle: str


@dataclass
class Preflight:
    """What is known of a folder before any pixel is read.

    Parameters
    ----------
    files : sequence of ImageFile
    headers : dict
        Image -> what its header says; without the refused.
    refused : dict
        Image -> why it will be refused, in one sentence without its name. Headers do not show all: damaged pixels and
        colour are found in reading.
    skipped : dict
        Name -> why it was not looked at.
    warnings : list of str
        What a user should know and nothing is refused for: names that are easily mixed up, overridden pixel sizes.
    room : Room
    labels : LabelFolder or None
    label_error : str
        Why the labels as a whole cannot be used; empty if they can.
    seconds : float
        What looking took.
    """

    files: Sequence[ImageFile]
    headers: dict[str, Header]
    refused: dict[str, str]
    skipped: Mapping[str, str]
    warnings: list[str]
    room: Room
    labels: LabelFolder | None = None
    label_error: str = ""
    seconds: float = field(default=0.0)

    @property
    def obstacles(self) -> list[str]:
        """Why a run cannot be of any use; none for a folder that a run can work on, though it may refuse files."""
        nothing = "" if self.files else "no file in this folder looks like a micrograph"
        return [reason for reason in (nothing, self.room.obstacle, self.label_error) if reason]

    @property
    def n_refused(self) -> int:
        """Images and label files that a run would refuse."""
        return len(self.refused) + (len(self.labels.errors) if self.labels else 0)

    def lines(self) -> list[str]:
        """A short table, however large the folder."""
        rows = [("images", self._images())]
        if self.headers:
            rows.append(("pixel size", _counted(_size_words(header) for header in self.headers.values())))
        rows += self._labels()
        rows += [("refused", _named(self.refused, "image"))] if self.refused else []
        rows += [("skipped", _named(self.skipped, "name"))] if self.skipped else []
        rows += [("note", shown(warning)) for warning in self.warnings]
        rows.append(("output", self._output()))
        return [f"  {name:<11} {text}" for name, text in rows]

    def _images(self) -> str:
        total = sum(file.size_bytes for file in self.files)
        text = f"{len(self.files)} files, {_size(total)}"
        if not self.headers:
            return text
        frames = sum(header.n_frames for header in self.headers.values())
        sides = [(header.height, header.width) for header in self.headers.values()]
        small, large = min(sides, key=_area), max(sides, key=_area)
        span = f"{small[0]} × {small[1]}" + (f" to {large[0]} × {large[1]}" if large != small else "")
        return (
            f"{text}; {frames} frames; {_counted(h.format for h in self.headers.values())}; {span} px (rows × columns)"
        )

    def _labels(self) -> list[tuple[str, str]]:
        if self.label_error:
            return [("labels", self.label_error)]
        if self.labels is None:
            return []
        found = self.labels
        labelled = {image for tables in found.experts.values() for image in tables}
        rows = [
            ("labels", f"of {len(labelled)} images" + (f" ({found.convention_note})" if found.convention_note else ""))
        ]
        rows += [("", f"without an image: {_list(found.unmatched_labels)}")] if found.unmatched_labels else []
        unlabelled = [image for image in found.unlabelled_images if image in self.headers]
        rows += [("", f"images without labels, not scored: {_list(unlabelled)}")] if unlabelled else []
        rows += [("", f"refused, {_named(found.errors, 'label file')}")] if found.errors else []
        return rows

    def _output(self) -> str:
        if self.room.obstacle:
            return shown(self.room.obstacle)
        room = f"{_size(self.room.free_bytes)} free, {_size(self.room.needed_bytes)} needed at least"
        return f"{shown(str(self.room.output_dir))}: {room}"


def look(
    listing: FolderListing,
    output_dir: Path,
    *,
    pixel_sizes: Mapping[str, float],
    pixel_size_nm: float | None = None,
    labels_dir: Path | None = None,
    label_format: str | None = None,
    box_convention: str = "auto",
    clip: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Preflight:
    """Look at everything that can be known without reading pixels.

    Parameters
    ----------
    listing : FolderListing
    output_dir : Path
        Where results will go; need not exist.
    pixel_sizes : mapping of str to float
        As `read_pixel_sizes` gives it.
    pixel_size_nm : float, optional
        The user's, for images that are not in `pixel_sizes`.
    labels_dir, label_format, box_convention, clip
        As for `read_label_folder`; label files are small, and read whole.
    max_pixels : int
        As for `read_micrographs`.

    Returns
    -------
    Preflight
    """
    began = time.monotonic()
    headers: dict[str, Header] = {}
    refused: dict[str, str] = {}
    for file in listing.images:
        try:
            headers[file.image] = read_header(
                file, pixel_sizes=pixel_sizes, pixel_size_nm=pixel_size_nm, max_pixels=max_pixels
            )
        except MicrographError as error:
            refused[file.image] = str(error).removeprefix(f"{file.image}: ")
    names = [file.image for file in listing.images]
    found = Preflight(
        files=listing.images,
        headers=headers,
        refused=refused,
        skipped=listing.skipped,
        warnings=[*_name_warnings(names), *_size_warnings(names, headers, pixel_sizes)],
        room=room_for(headers.values(), output_dir),
    )
    if labels_dir is not None:
        shapes = [(image, (header.height, header.width)) for image, header in headers.items()]
        try:
            found.labels = read_label_folder(
                labels_dir, shapes, label_format=label_format, box_convention=box_convention, clip=clip
            )
        except LabelError as error:
            found.label_error = str(error)
        else:
            of_refused = {*refused, *(image.rsplit(".", 1)[0] for image in refused)}
            found.labels.unmatched_labels = [
                name for name in found.labels.unmatched_labels if not {name, name.rsplit(".", 1)[0]} & of_refused
            ]
    found.seconds = time.monotonic() - began
    return found


def room_for(headers: Iterable[Header], output_dir: Path) -> Room:
    """Whether results can be written to a folder, found out without writing."""
    frames = pixels = 0
    for header in headers:
        frames, pixels = frames + header.n_frames, pixels + header.n_pixels
    needed = int(_BYTES_PER_FRAME * frames + _BYTES_PER_PIXEL * pixels)
    place = output_dir
    try:
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent
        free = shutil.disk_usage(place).free
        read_only = bool(os.statvfs(place).f_flag & os.ST_RDONLY)
        if free < needed:
            # A second run replaces what the first has written.
            needed = max(0, needed - sum(e.stat().st_size for e in output_dir.rglob("*") if e.is_file()))
    except OSError as error:
        return Room(output_dir, 0, needed, f"{output_dir}: cannot be written ({error.strerror}).")
    obstacle = ""
    if not place.is_dir():
        obstacle = f"{output_dir}: cannot be written ({place.name} is a file)."
    elif read_only or not os.access(place, os.W_OK | os.X_OK):
        why = "a read-only file system" if read_only else f"no permission to write in {place}"
        obstacle = f"{output_dir}: cannot be written ({why}); give another --output-dir."
    elif free == 0 or free < needed:
        obstacle = (
            f"{output_dir}: the disk is full: {_size(free)} are free, the results need {_size(needed)} at least; "
            "give another --output-dir."
        )
    return Room(output_dir, free, needed, obstacle)


def _name_warnings(images: Sequence[str]) -> list[str]:
    kinds: list[tuple[str, Callable[[str], str]]] = [
        (
            "names that differ in upper and lower case or the spelling of an accent only",
            lambda name: unicodedata.normalize("NFC", name).casefold(),
        ),
        ("images with the same name in several formats, each counted", lambda name: name.removesuffix(_suffix(name))),
        ("images with the same file name in several folders", lambda name: PurePosixPath(name).name),
    ]
    warnings = []
    for what, key in kinds:
        alike: dict[str, list[str]] = {}
        for image in images:
            alike.setdefault(key(image), []).append(image)
        groups = [names for names in alike.values() if len(names) > 1]
        if groups:
            warnings.append(f"{len(groups)} × {what}: {_list([' and '.join(names[:3]) for names in groups])}")
    return warnings


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix


def _size_warnings(images: Sequence[str], headers: Mapping[str, Header], pixel_sizes: Mapping[str, float]) -> list[str]:
    unused = sorted(set(pixel_sizes) - {entry_for(image, pixel_sizes) for image in images})
    warnings = [f"{FILE_NAME} names what is not in the folder: {_list(unused)}"] if unused else []
    overridden = [f"{image} ({note})" for image, header in headers.items() for note in header.notes]
    return [*warnings, *([f"pixel sizes overridden: {_list(overridden)}"] if overridden else [])]


def _size_words(header: Header) -> str:
    if header.calibration is None:
        return "unknown, so no nm"
    return f"{header.calibration.pixel_size_nm:.4g} nm ({header.calibration.source})"


def _counted(words: Iterable[str]) -> str:
    """Words by how often they come, the rarer ones lumped together."""
    counts = Counter(words).most_common()
    parts = [f"{n} × {shown(word)}" for word, n in counts[: 2 * _NAMED]]
    rest = counts[2 * _NAMED :]
    return ", ".join(parts) + (f", {sum(n for _, n in rest)} × {len(rest)} others" if rest else "")


def _named(reasons: Mapping[str, str], what: str) -> str:
    """How many there are, the first of them with their reasons."""
    first = "; ".join(f"{name}: {reason.removeprefix(f'{name}: ').rstrip('.')}" for name, reason in _first(reasons))
    more = f" … and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    return shown(f"{len(reasons)} {what}{'s' * (len(reasons) != 1)}: {first}{more}")


def _first(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    return list(reasons.items())[:_NAMED]


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return shown(", ".join(names[:_NAMED]) + more)


def _area(side: tuple[int, int]) -> int:
    return side[0] * side[1]


def _size(n_bytes: float) -> str:
    power = next((p for p in (1, 2) if n_bytes < 1024 ** (p + 1)), 3)
    return f"{n_bytes / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"
