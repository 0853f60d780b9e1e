"""The kinds of images that can be simulated, and their presets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from defectpipe.errors import SettingsError
from defectpipe.simulation.images import SimulatedImage
from defectpipe.simulation.loops.fields import simulate_field
from defectpipe.simulation.loops.presets import PRESETS as LOOP_PRESETS
from defectpipe.simulation.preset import Preset
from defectpipe.simulation.sem.frames import simulate_sem
from defectpipe.simulation.sem.presets import PRESETS as SEM_PRESETS
from defectpipe.simulation.solids.fields import simulate_solids
from defectpipe.simulation.solids.presets import PRESETS as SOLID_PRESETS


@dataclass(frozen=True)
class Kind:
    """One simulator.

    Parameters
    ----------
    simulate : callable
        Gives image `index` of the series that a preset and a seed make; of these three it depends alone.
    presets : mapping of str to Preset
        The first is the default.
    """

    simulate: Callable[[Any, int, int], SimulatedImage]
    presets: Mapping[str, Preset]


KINDS: dict[str, Kind] = {
    "loops": Kind(simulate_field, LOOP_PRESETS),
    "solids": Kind(simulate_solids, SOLID_PRESETS),
    "sem": Kind(simulate_sem, SEM_PRESETS),
}


def find_preset(kind: str, preset: str | Preset = "") -> Preset:
    """The preset of that name, or the one given; without a name the default of the kind.

    Raises
    ------
    SettingsError
        There is no such kind, or no such preset of it.
    """
    if kind not in KINDS:
        raise SettingsError(f"There is no simulation of '{kind}'; known: {', '.join(KINDS)}.")
    if isinstance(preset, Preset):
        return preset
    known = KINDS[kind].presets
    if not preset:
        return next(iter(known.values()))
    if preset not in known:
        raise SettingsError(f"There is no preset '{preset}' of simulated {kind}; known: {', '.join(known)}.")
    return known[preset]
