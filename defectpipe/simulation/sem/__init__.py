"""SEM images of tin balls and grids at a known magnification and focus, and defocus of real textures."""
