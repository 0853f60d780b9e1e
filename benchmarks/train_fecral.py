"""Train models/fecral-loops: five models without one fold of families each, and one on all images.

About two CPU hours. A training that was interrupted goes on where it stood.
"""

from __future__ import annotations

from pathlib import Path

from fecral_data import MODELS, NAME, training_images

from defectpipe.training import train_loop_model

if __name__ == "__main__":
    recipe = Path(__file__).with_name("fecral-recipe.json")
    print(train_loop_model(training_images(), NAME, MODELS, recipe=recipe, seed=0))
