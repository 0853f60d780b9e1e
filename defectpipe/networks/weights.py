"""Weights (HDF5) back into a Keras network: from bytes that were hashed, and from nothing else."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from defectpipe.errors import ModelError
from defectpipe.io.hdf5 import check_hdf5

if TYPE_CHECKING:
    import keras


def load_weights(network: keras.Model, content: bytes, source: str, wanted: str = "no weights of this network") -> None:
    """Give `network` the weights of a file.

    Parameters
    ----------
    network : keras.Model
    content : bytes
        Of the file.
    source, wanted : str
        For the message: where the file is from, and what it turned out not to be.

    Raises
    ------
    ModelError
        It takes its data from elsewhere, or its layers are not those of the network.
    """
    import h5py

    try:
        check_hdf5(io.BytesIO(content))
        with h5py.File(io.BytesIO(content), "r") as file:
            # keras.applications ships files of the older layout
            ending = ".h5" if "layer_names" in file.attrs else ".weights.h5"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"weights{ending}"
            path.write_bytes(content)
            network.load_weights(path)
    except Exception as error:  # h5py and Keras raise many kinds
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ModelError(f"{source}: {wanted} ({reason}).") from error
