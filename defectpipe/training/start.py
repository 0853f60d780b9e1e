"""A training that starts from a model: what it takes over, and which images that model knows already."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectpipe.errors import LabelError, ModelError, SettingsError
from defectpipe.model import WEIGHTS, LoopModel, find_model
from defectpipe.screening.start import StartWeights
from defectpipe.training.folds import assign_folds
from defectpipe.training.image_list import NO_FOLD, pixel_sha256, pixels_known_to
from defectpipe.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    from defectpipe.micrograph import Micrograph
    from defectpipe.training.model_before import ModelBefore

# Half the rate from scratch: the better one of two on fold 1 of fecral-loops (`make bench-learning`). As many steps as
# models/316l-loops had; what is no loop is weighed at once, for the start can tell already.
WARM_STEPS, WARM_LEARNING_RATE, WARM_REWEIGH_AT = 1200, 1e-3, (0.0, 0.25, 0.5, 0.75)
# A model may have been started from one that was started from one: no more of them are named.
_LONGEST_LINE = 8
# Below, loops are lost before the screener sees them.
_FITTING_CASCADE = 0.85
# Of groups that are new to the start: the threshold of a fold comes from the others.
_LEAST_GROUPS = 2


@dataclass(frozen=True)
class StartModel:
    """The model that a training starts from.

    Parameters
    ----------
    name, sha256 : str
        Its hash is over its card and all of its files.
    path : Path
    """

    name: str
    sha256: str
    path: Path

    @classmethod
    def of(cls, model: LoopModel) -> StartModel:
        """This model, wherever it lies."""
        return cls(model.name, model.sha256, model.path)

    @classmethod
    def find(cls, name_or_path: str, places: Sequence[Path] = ()) -> StartModel:
        """The model of that name or path (see `model.find_model`).

        Raises
        ------
        ModelError
            There is none, or it cannot be used.
        """
        return cls.of(LoopModel.load(find_model(name_or_path, places)))

    @classmethod
    def for_corrections(
        cls,
        before: ModelBefore,
        micrographs: Sequence[Micrograph],
        groups: Sequence[str],
        recipe: Path | None = None,
        places: Sequence[Path] = (),
    ) -> tuple[StartModel | None, str]:
        """What a training from corrections starts from: the model of the run that was corrected.

        Where that one has learned from so many of these images that no figure could be held out, the model that it was
        itself started from, and so on.

        Parameters
        ----------
        before : ModelBefore
        micrographs : sequence of Micrograph
            All images of the training.
        groups : sequence of str
            Of each image.
        recipe : Path, optional
            JSON file; where it asks for what the model cannot give, such as another architecture, there is no start.
        places : sequence of Path
            Folders of models, beside the built-in ones.

        Returns
        -------
        StartModel or None
            None: the training has to begin from scratch.
        str
            Which it is, in a sentence.
        """
        if before.path is None:
            return None, f"the training begins from scratch: {before.missing}"
        pixels = [pixel_sha256(m.grey8()) for m in micrographs]
        model = LoopModel.load(before.path)
        start, line = cls.of(model), _line(model.card)
        while len(set(groups) - _groups_known(pixels, groups, pixels_known_to(start.path) or set())) < _LEAST_GROUPS:
            older = None
            while line and older is None:
                older = cls._of_hash(line.pop(0), places)
            if older is None:
                return None, f"the training begins from scratch: '{start.name}' has learned from these images already"
            start = older
        try:
            whole_recipe(recipe, start.load())
        except SettingsError as error:
            return None, f"the training begins from scratch: {error}"
        return start, f"the training starts from '{start.name}'"

    @classmethod
    def _of_hash(cls, said: Mapping[str, str], places: Sequence[Path]) -> StartModel | None:
        """The model that a card names, if it is at hand."""
        try:
            found = cls.find(said["name"], places)
        except ModelError:
            return None
        return found if found.sha256 == said["sha256"] else None

    def load(self) -> LoopModel:
        """The model itself, which must still be the same.

        Raises
        ------
        ModelError
            It has been changed or taken away since.
        """
        model = LoopModel.load(self.path)
        if model.sha256 != self.sha256:
            raise ModelError(
                f"{self.path}: this is no longer the model that the training started from; begin it again."
            )
        return model

    def weights(self, recipe: TrainingRecipe) -> StartWeights:
        """What a screener of this recipe begins with."""
        model, wanted = self.load(), recipe.defect_classes
        known = model.classes.told_apart
        content = model.files.content(WEIGHTS)
        return StartWeights(content, str(self.path / WEIGHTS), len(known), known == wanted.told_apart)


def recipe_from(model: LoopModel) -> TrainingRecipe:
    """The default recipe of a training that starts from a model.

    The architecture, the convention of its boxes, the polarity, the number of candidates and the rules of screening are
    the model's, its cascade is kept, and the schedule is shorter and gentler. The working pixel size and the sizes that
    are looked for come from the new images, as without a start: candidates are cut to one size before the screener sees
    them, so what counts is the size of the loops in px.
    """
    default = TrainingRecipe()
    training = dataclasses.replace(
        default.screener_training,
        n_steps=WARM_STEPS,
        peak_learning_rate=WARM_LEARNING_RATE,
        reweigh_at=WARM_REWEIGH_AT,
        batch_size=64,
    )
    return dataclasses.replace(
        default,
        box_convention=model.box_convention,
        polarity=model.polarity,
        box_spread=model.box_spread,
        max_candidates_per_megapixel=model.max_candidates,
        train_cascade=False,
        cascade=dataclasses.replace(default.cascade, window_px=model.cascade.window_px),
        screener=model.seen,
        screener_training=training,
        screening=model.screening,
    )


def whole_recipe(recipe: TrainingRecipe | Path | None, start: LoopModel | None) -> TrainingRecipe:
    """The recipe of a training: the default, that of `recipe_from` where there is a start, changed by a JSON file.

    Raises
    ------
    SettingsError
        It asks for what its start cannot give; names the field.
    """
    if not isinstance(recipe, TrainingRecipe):
        default = TrainingRecipe() if start is None else recipe_from(start)
        recipe = default if recipe is None else TrainingRecipe.read(recipe, default)
    if start is None:
        if not recipe.train_cascade:
            raise SettingsError("recipe: train_cascade can only be false where a training starts from a model.")
    elif recipe.screener != start.seen:
        raise SettingsError(
            f"recipe: the screener is that of '{start.name}', from which the training starts: leave 'screener' out, or "
            "start from no model."
        )
    elif not recipe.train_cascade and recipe.box_convention != start.box_convention:
        raise SettingsError(
            f"recipe: the cascade of '{start.name}' proposes {start.box_convention} boxes: for {recipe.box_convention} "
            "ones, set train_cascade to true."
        )
    return recipe


def folds_without_known(
    groups: Sequence[str],
    weights: Sequence[int],
    given: Sequence[int | None],
    n_folds: int,
    pixels: Sequence[str] = (),
    start: StartModel | None = None,
) -> tuple[list[int], int | None]:
    """Folds (see `folds.assign_folds`) of the images that are new to the start.

    An image that the start was trained on, and every other field of its group, would be no held-out image: it has
    `NO_FOLD`.

    Parameters
    ----------
    groups, weights, given, n_folds
        See `folds.assign_folds`.
    pixels : sequence of str
        Hash of each image's pixels.
    start : StartModel, optional

    Returns
    -------
    folds : list of int
    known : int or None
        Number of the images that the start was trained on; None: there is no start, or it has no list of its images.

    Raises
    ------
    LabelError
        So few groups are new that no figure and no threshold could be held out.
    """
    known = None if start is None else pixels_known_to(start.path)
    if start is None or not known:
        return assign_folds(groups, weights, given, n_folds), None if known is None else 0
    seen = [sha256 in known for sha256 in pixels]
    not_new = _groups_known(pixels, groups, known)
    new = [k for k, group in enumerate(groups) if group not in not_new]
    n_new = len({groups[k] for k in new})
    if n_new < _LEAST_GROUPS:
        raise LabelError(
            f"'{start.name}' was trained on {sum(seen)} of these {len(groups)} images; groups without any of them: "
            f"{n_new}, and figures and threshold need at least two. Label more images, start from another model, or "
            "from none."
        )
    folds = [NO_FOLD] * len(groups)
    of_new = assign_folds([groups[k] for k in new], [weights[k] for k in new], [given[k] for k in new], n_folds)
    for k, fold in zip(new, of_new, strict=True):
        folds[k] = fold
    return folds, sum(seen)


def started_from(
    start: StartModel, recipe: TrainingRecipe, known: int | None, n_left_out: int, cascade_recall: float | None = None
) -> dict[str, Any]:
    """What the card says of the start.

    Parameters
    ----------
    start : StartModel
    recipe : TrainingRecipe
    known : int or None
        Images that the start was trained on; None: it has no list.
    n_left_out : int
        Images that are in no figure for that: those, and the others of their groups.
    cascade_recall : float, optional
        Of the new model's candidates on the held-out images, by the 20 px rule.

    Returns
    -------
    dict
        ``name``, ``sha256``, ``source``, ``licence``, ``cascade`` (``kept`` or ``trained``), ``known_images``,
        ``images_in_no_figure``, ``said``; ``started_from``: the names and hashes of that model's own start, and so on.
    """
    card = start.load().card
    said = card.get("data")
    data: dict[str, Any] = said if isinstance(said, dict) else {}
    return {
        "name": start.name,
        "sha256": start.sha256,
        "source": str(data.get("source", "not stated")),
        "licence": str(data.get("licence", "not stated")),
        "cascade": "trained" if recipe.train_cascade else "kept",
        "known_images": known,
        "images_in_no_figure": n_left_out,
        "said": known_sentence(start.name, known, n_left_out) + _of_cascade(start.name, recipe, cascade_recall),
        "started_from": _line(card),
    }


def known_sentence(name: str, known: int | None, n_left_out: int) -> str:
    """Which of the images the start knew, in a sentence."""
    if known is None:
        return (
            f"'{name}' has no list of the images that it was trained on: if some of these are among them, the figures "
            "are too good."
        )
    if not known:
        return f"'{name}' was trained on none of these images."
    return (
        f"'{name}' was trained on {known} of these images: they, and the other fields of their groups, {n_left_out} "
        "in all, are learned from, but are in no figure and in no threshold."
    )


def _of_cascade(name: str, recipe: TrainingRecipe, recall: float | None) -> str:
    """A word where the cascade that was kept does not fit the new loops."""
    if recipe.train_cascade or recall is None or recall >= _FITTING_CASCADE:
        return ""
    return (
        f" Its cascade proposes only {recall:.0%} of the labelled loops (20 px rule): let the recipe train one "
        '("train_cascade": true).'
    )


def _groups_known(pixels: Sequence[str], groups: Sequence[str], known: Collection[str]) -> set[str]:
    """Groups of which a model knows an image: none of their fields is new to it."""
    return {group for sha256, group in zip(pixels, groups, strict=True) if sha256 in known}


def _line(card: dict[str, Any]) -> list[dict[str, str]]:
    """The start of a model, that one's start, and so on."""
    first = card.get("started_from")
    if not isinstance(first, dict):
        return []
    rest = first.get("started_from")
    models = [first, *(rest if isinstance(rest, list) else [])][:_LONGEST_LINE]
    return [
        {k: str(m.get(k, "")) for k in ("name", "sha256", "source", "licence")} for m in models if isinstance(m, dict)
    ]
