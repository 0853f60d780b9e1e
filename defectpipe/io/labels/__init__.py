"""Expert labels of loops in the formats that the field uses."""
