"""Puts the toy chain in the place of the real one in every process of a run whose PYTHONPATH begins here."""

import sys

import toy_chain

sys.modules["defectpipe.analysis"] = toy_chain
sys.modules["defectpipe.model"] = toy_chain
# JupyterLab brings it along, jsonschema loads it where it is, and Luigi loads jsonschema: a second of CPU time at every
# start, for nothing. jsonschema goes without.
sys.modules["rfc3987_syntax"] = None
