"""A screener that begins with the weights of another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from defectpipe.networks.weights import load_weights
from defectpipe.screening.network import LOGIT_AND_BOX, ScreenerRecipe, build_network

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, eq=False)
class StartWeights:
    """Weights of a trained screener.

    Parameters
    ----------
    content : bytes
        Of its ``screener.weights.h5``.
    source : str
        Where that is, for messages.
    n_classes : int
        Classes that it tells apart; 0 where it knows but one.
    same_classes : bool
        Whether the new screener tells the same ones apart, so that the answers of the classes are taken over as well.
    """

    content: bytes
    source: str
    n_classes: int = 0
    same_classes: bool = True

    def give(self, network: keras.Model, recipe: ScreenerRecipe) -> None:
        """Give a network of `network.build_network` these weights; of classes that it does not share, none.

        Raises
        ------
        ModelError
            They are of another architecture.
        """
        before = build_network(recipe, self.n_classes)
        load_weights(before, self.content, self.source, "no weights of a screener as the card describes it")
        for layer, old in zip(network.layers[:-1], before.layers[:-1], strict=True):
            layer.set_weights(old.get_weights())
        last = network.layers[-1]
        n_answers = last.output.shape[-1] if self.same_classes else LOGIT_AND_BOX
        kernel, bias = (np.array(values) for values in last.get_weights())
        old_kernel, old_bias = before.layers[-1].get_weights()
        kernel[:, :n_answers], bias[:n_answers] = old_kernel[:, :n_answers], old_bias[:n_answers]
        last.set_weights([kernel, bias])
