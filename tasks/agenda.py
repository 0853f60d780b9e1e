"""What a run has to compute and why, what of it is done, and how that is told."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tasks.logs import Progress, logger
from tasks.plan import BEFORE, FOCUS, MODEL_PART, STAGES, ModelInfo
from tasks.stamps import UPSTREAM_CHANGED


@dataclass(eq=False)
class Agenda:
    """The stale results of a run by stage, part of the folder and image.

    Luigi asks every task whether it is complete before it runs the first, so that what a run has to do is known, and
    one job can do all stages of an image.
    """

    model: ModelInfo
    progress: Progress
    stages_done: Counter[str] = field(default_factory=Counter)
    images_done: set[str] = field(default_factory=set)
    # Images whose result of a stage was found current: within a run that does not change, and Luigi asks often.
    current: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _stale: dict[str, dict[int, dict[str, str]]] = field(default_factory=lambda: defaultdict(dict))
    _explained: set[str] = field(default_factory=set)
    _begun: set[str] = field(default_factory=set)
    _done: set[tuple[str, str]] = field(default_factory=set)

    def note_stale(self, stage: str, shard: int, reasons: dict[str, str]) -> None:
        """Remember what of one part a stage has to compute, until that has been told."""
        if stage not in self._explained:
            self._stale[stage][shard] = reasons

    def has_begun(self, stage: str) -> bool:
        """Whether a stage is under way, or what it computes has been told with an earlier one."""
        return stage in self._explained

    def begin(self, stage: str) -> None:
        """When a stage begins: say what it, and what is done along with it, computes and why; open the bar."""
        if stage in self._begun:
            return
        self._begun.add(stage)
        own = [(shard, image) for shard, part in self._stale[stage].items() for image in part]
        own = [waiting for waiting in own if self._awaits(stage, *waiting)]
        along = [later for later in _after(stage) if any(self._awaits(later, *waiting) for waiting in own)]
        for one in (stage, *along):
            self._explain(one)
        self.progress.expect(stage, len(own), "analysis" if along else stage)

    def chain(self, stage: str, shard: int, image: str) -> list[str]:
        """A stage, and those after it that this run has to compute for the same image: one job does them all."""
        return [stage, *(later for later in _after(stage) if self._awaits(later, shard, image))]

    def note_done(self, stage: str, image: str) -> None:
        """Count a result that was computed."""
        self._done.add((stage, image))
        self.stages_done[stage] += 1
        self.images_done.add(image)

    def say(self, line: str, *values: object) -> None:
        """Say what begins: the bar of what was before ends where it is, and the line stands below it."""
        self.progress.close()
        logger.info(line, *values)

    def _awaits(self, stage: str, shard: int, image: str) -> bool:
        return image in self._stale[stage].get(shard, ()) and (stage, image) not in self._done

    def _explain(self, stage: str) -> None:
        if stage not in self._explained:
            self._explained.add(stage)
            reasons = Counter(self._reason(stage, image) for part in self._stale[stage].values() for image in part)
            why = "; ".join(f"{n} image{'s' * (n != 1)}: {reason}" for reason, n in sorted(reasons.items()))
            self.say("%s: %s", stage, why or "nothing to compute")

    def _reason(self, stage: str, image: str) -> str:
        """Why a stage computes an image: where a stage before it had to, that one's reason."""
        found = next((part[image] for part in self._stale[stage].values() if image in part), "")
        above = BEFORE.get(stage)
        if found == UPSTREAM_CHANGED and above is not None:
            where = " in this part of the folder" if stage == "statistics" else ""
            return self._reason(above, image) or f"{above}{where} changed"
        return found.replace(MODEL_PART, f"{self.model.shown_name}: ", 1).replace(MODEL_PART, "")


def _after(stage: str) -> tuple[str, ...]:
    """The stages that one job can do after a stage; each needs the pixels of the image, and of other images nothing."""
    order = (FOCUS, *STAGES)
    return order[order.index(stage) + 1 :] if stage in order else ()
