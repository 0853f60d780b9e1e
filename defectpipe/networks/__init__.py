"""Training loop and export shared by the networks."""
