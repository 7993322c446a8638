"""The two tables of ``onnx.mapping`` that onnx_chainer uses; ONNX 1.19 replaced them by functions."""

from __future__ import annotations

from typing import Any

try:
    from onnx.mapping import NP_TYPE_TO_TENSOR_TYPE, STORAGE_TENSOR_TYPE_TO_FIELD
except ImportError:
    import numpy
    from onnx import TensorProto, helper

    NP_TYPE_TO_TENSOR_TYPE: Any = {  # type: ignore[no-redef]
        numpy.dtype(dtype): helper.np_dtype_to_tensor_dtype(numpy.dtype(dtype))
        for dtype in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16", "O")
    }
    STORAGE_TENSOR_TYPE_TO_FIELD: Any = {  # type: ignore[no-redef]
        TensorProto.FLOAT: "float_data",
        TensorProto.DOUBLE: "double_data",
        TensorProto.INT32: "int32_data",
        TensorProto.INT64: "int64_data",
        TensorProto.UINT16: "int32_data",
        TensorProto.UINT32: "uint64_data",
        TensorProto.UINT64: "uint64_data",
        TensorProto.BOOL: "int32_data",
        TensorProto.STRING: "string_data",
        TensorProto.COMPLEX64: "float_data",
        TensorProto.COMPLEX128: "double_data",
    }
