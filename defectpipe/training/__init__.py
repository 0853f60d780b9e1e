"""Training of loop models on a user's images and labels, cross-validated by group."""

from defectpipe.training.loop_model import TrainingImage, train_loop_model
from defectpipe.training.recipe import TrainingRecipe

__all__ = ["TrainingImage", "TrainingRecipe", "train_loop_model"]
