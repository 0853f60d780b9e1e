"""An ONNX network ready to be used: on one thread, without a word to the terminal."""

from __future__ import annotations

import onnxruntime

from defectpipe.errors import ModelError


def open_session(data: bytes, name: str) -> onnxruntime.InferenceSession:
    """Give a network to ONNX Runtime; what comes from others goes through `onnx_check.check_network` first.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        How messages call it.

    Raises
    ------
    ModelError
        ONNX Runtime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises its own types, none of them public
        raise ModelError(f"{name}: cannot be loaded as an ONNX network ({error}).") from error
