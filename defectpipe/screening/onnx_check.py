"""What an ONNX file must be to pass for a screener."""

from __future__ import annotations

from functools import partial
from typing import Any

from defectpipe.networks.onnx_check import MAX_ONNX_BYTES, NetworkShape, check_network
from defectpipe.screening.network import LOGIT_AND_BOX, ScreenerRecipe

__all__ = ["MAX_ONNX_BYTES", "check_onnx"]


def check_onnx(data: bytes, name: str, recipe: ScreenerRecipe | int, batch: int, n_classes: int = 0) -> None:
    """Refuse an ONNX file that is not a screener.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        How messages call it.
    recipe : ScreenerRecipe or int
        What the card says of the network; or the side of its input alone.
    batch : int
        Number of crops that it will be given at once.
    n_classes : int
        Classes that it tells apart; 0 where there is one only.

    Raises
    ------
    ModelError
        See `networks.onnx_check.check_network`.
    """
    crop_px = recipe if isinstance(recipe, int) else recipe.crop_px
    n_answers = LOGIT_AND_BOX + n_classes
    weights = None
    if isinstance(recipe, ScreenerRecipe):
        weights = partial(_check_weights, recipe=recipe, n_answers=n_answers)
    shape = NetworkShape(
        "screener", {"crops": (crop_px, crop_px, 1)}, n_answers, batch, f"crops of {crop_px} px", check_weights=weights
    )
    check_network(data, name, shape)


def _check_weights(model: Any, recipe: ScreenerRecipe, n_answers: int) -> None:
    first, second, third = recipe.widths
    # Strided with padding, then two poolings that drop an odd last row.
    side = (recipe.crop_px + 1) // 2 // 2 // 2
    kernels = [(first, 1, 5, 5), (first, first, 3, 3), (second, first, 3, 3), (second, second, 3, 3)]
    kernels += [(third, second, 3, 3), (third, third, 3, 3), (32, third, 1, 1)]
    dense = [(32 * side * side, recipe.hidden), (recipe.hidden, n_answers)]
    # A matrix may be kept either way round.
    wanted = sorted([*kernels, *(tuple(sorted(shape)) for shape in dense)])
    shapes = [tuple(tensor.dims) for tensor in model.graph.initializer]
    found = sorted(
        [*(s for s in shapes if len(s) == 4 and s[0] > 1), *(tuple(sorted(s)) for s in shapes if len(s) == 2)]
    )
    if found != wanted:
        raise ValueError("its weights have not the shapes that the card tells")
