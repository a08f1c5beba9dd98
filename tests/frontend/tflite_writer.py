"""Writes small TFLite files, so that a test can set one attribute at a time."""

import flatbuffers
import numpy as np
import tflite

TYPES = {np.dtype(np.int8): "INT8", np.dtype(np.uint8): "UINT8", np.dtype(np.int16): "INT16", np.dtype(np.int32): "INT32",
         np.dtype(np.float32): "FLOAT32"}


class Writer:
    """Collects tensors and operators; ``write`` gives the bytes."""

    def __init__(self):
        self.tensors, self.ops = [], []

    def tensor(self, shape, dtype=np.int8, scale=(0.05,), zero=(3,), data=None, axis=0, variable=False):
        """Append a tensor and return its index."""
        self.tensors.append((list(shape), np.dtype(dtype), list(np.atleast_1d(scale)),
                             list(np.atleast_1d(zero)), data, axis, variable))
        return len(self.tensors) - 1

    def const(self, data, scale=(), zero=(), axis=0):
        """Append a constant and return its index."""
        data = np.asarray(data)
        return self.tensor(data.shape, data.dtype, scale, zero, data, axis)

    def op(self, kind, inputs, outputs, table=None, **fields):
        """Append an operator."""
        self.ops.append((kind, list(inputs), list(outputs), table, fields))

    def write(self, inputs, outputs, version=3):
        """Return the file."""
        b = flatbuffers.Builder(1 << 12)

        def vector(values, start, prepend):
            start(b, len(values))
            for v in reversed(values):
                prepend(v)
            return b.EndVector()

        buffers = []
        for data in [None, *(t[4] for t in self.tensors)]:
            blob = None if data is None else b.CreateByteVector(np.ascontiguousarray(data).tobytes())
            tflite.BufferStart(b)
            if blob is not None:
                tflite.BufferAddData(b, blob)
            buffers.append(tflite.BufferEnd(b))
        tensors = []
        for i, (shape, dtype, scale, zero, _, axis, variable) in enumerate(self.tensors):
            name = b.CreateString(f"t{i}")
            dims = vector(shape, tflite.TensorStartShapeVector, b.PrependInt32)
            scales = vector([float(v) for v in scale], tflite.QuantizationParametersStartScaleVector, b.PrependFloat32)
            zeros = vector([int(v) for v in zero], tflite.QuantizationParametersStartZeroPointVector, b.PrependInt64)
            tflite.QuantizationParametersStart(b)
            tflite.QuantizationParametersAddScale(b, scales)
            tflite.QuantizationParametersAddZeroPoint(b, zeros)
            tflite.QuantizationParametersAddQuantizedDimension(b, axis)
            q = tflite.QuantizationParametersEnd(b)
            tflite.TensorStart(b)
            tflite.TensorAddShape(b, dims)
            tflite.TensorAddType(b, getattr(tflite.TensorType, TYPES[dtype]))
            tflite.TensorAddBuffer(b, i + 1)
            tflite.TensorAddName(b, name)
            tflite.TensorAddQuantization(b, q)
            tflite.TensorAddIsVariable(b, variable)
            tensors.append(tflite.TensorEnd(b))
        codes, ops = [], []
        for i, (kind, ins, outs, table, fields) in enumerate(self.ops):
            number = getattr(tflite.BuiltinOperator, kind)
            custom = b.CreateString("mine") if kind == "CUSTOM" else None
            tflite.OperatorCodeStart(b)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(b, min(number, 127))
            tflite.OperatorCodeAddBuiltinCode(b, number)
            tflite.OperatorCodeAddVersion(b, 1)
            if custom is not None:
                tflite.OperatorCodeAddCustomCode(b, custom)
            codes.append(tflite.OperatorCodeEnd(b))
            options = None
            if table:
                fields = {key: vector(value, getattr(tflite, f"{table}Start{key}Vector"), b.PrependInt32) if isinstance(value, list)
                          else value for key, value in fields.items()}
                getattr(tflite, f"{table}Start")(b)
                for key, value in fields.items():
                    getattr(tflite, f"{table}Add{key}")(b, value)
                options = getattr(tflite, f"{table}End")(b)
            iv = vector(ins, tflite.OperatorStartInputsVector, b.PrependInt32)
            ov = vector(outs, tflite.OperatorStartOutputsVector, b.PrependInt32)
            tflite.OperatorStart(b)
            tflite.OperatorAddOpcodeIndex(b, i)
            tflite.OperatorAddInputs(b, iv)
            tflite.OperatorAddOutputs(b, ov)
            if options is not None:
                tflite.OperatorAddBuiltinOptionsType(b, getattr(tflite.BuiltinOptions, table))
                tflite.OperatorAddBuiltinOptions(b, options)
            ops.append(tflite.OperatorEnd(b))
        iv = vector(inputs, tflite.SubGraphStartInputsVector, b.PrependInt32)
        ov = vector(outputs, tflite.SubGraphStartOutputsVector, b.PrependInt32)
        tv = vector(tensors, tflite.SubGraphStartTensorsVector, b.PrependUOffsetTRelative)
        opv = vector(ops, tflite.SubGraphStartOperatorsVector, b.PrependUOffsetTRelative)
        tflite.SubGraphStart(b)
        tflite.SubGraphAddInputs(b, iv)
        tflite.SubGraphAddOutputs(b, ov)
        tflite.SubGraphAddTensors(b, tv)
        tflite.SubGraphAddOperators(b, opv)
        graph = tflite.SubGraphEnd(b)
        gv = vector([graph], tflite.ModelStartSubgraphsVector, b.PrependUOffsetTRelative)
        cv = vector(codes, tflite.ModelStartOperatorCodesVector, b.PrependUOffsetTRelative)
        bv = vector(buffers, tflite.ModelStartBuffersVector, b.PrependUOffsetTRelative)
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, version)
        tflite.ModelAddSubgraphs(b, gv)
        tflite.ModelAddOperatorCodes(b, cv)
        tflite.ModelAddBuffers(b, bv)
        b.Finish(tflite.ModelEnd(b), file_identifier=b"TFL3")
        return bytes(b.Output())
