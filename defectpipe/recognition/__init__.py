"""What objects in dark-field images are: their class, outline, thickness, deformation and dimensions."""
