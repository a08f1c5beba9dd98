"""Trap models for TFLite, one attribute each: equal to the reference kernels on every tensor, or refused by name."""

import numpy as np
import pytest

pytest.importorskip("tflite", reason="the package tflite is not installed")

from hwq.frontend.tflite_check import compare_tflite
from hwq.interp import run

from .expected import EXACT, imported_or_refused
from .tflite_writer import Writer


def conv(shape=(1, 7, 6, 4), out=6, kernel=(3, 3), groups=1, depthwise=0, stride=(1, 1), dilation=(1, 1), same=True, act=0, seed=0,
         zero=3, out_zero=-5, wzero=0, bias=True, wdtype=np.int8, scales=None, axis=None, out_scale=0.2, x_dtype=np.int8, **extra):
    rng, w = np.random.default_rng(seed), Writer()
    c = shape[-1]
    x = w.tensor(shape, x_dtype, 0.05, zero)
    if depthwise:
        out = c * depthwise
        weight = rng.integers(-127, 128, (1, *kernel, out)).astype(wdtype)
    else:
        weight = rng.integers(-127, 128, (out, *kernel, c // groups)).astype(wdtype)
    axis = axis if axis is not None else 3 if depthwise else 0
    scales = rng.uniform(0.001, 0.003, out) if scales is None else scales
    wt = w.const(weight, scales, [wzero] * len(scales), axis)
    bt = w.const(rng.integers(-4000, 4000, out).astype(np.int32), scales * 0.05, [0] * len(scales)) if bias else -1
    size = [-(-n // s) if same else (n - (k - 1) * d - 1) // s + 1
            for n, k, s, d in zip(shape[1:3], kernel, stride, dilation, strict=True)]
    y = w.tensor((1, *size, out), np.int8, out_scale, out_zero)
    common = dict(Padding=0 if same else 1, StrideH=stride[0], StrideW=stride[1], DilationHFactor=dilation[0],
                  DilationWFactor=dilation[1], FusedActivationFunction=act)
    if depthwise:
        w.op("DEPTHWISE_CONV_2D", (x, wt, bt), (y,), "DepthwiseConv2DOptions",
             DepthMultiplier=extra.get("multiplier", depthwise), **common)
    else:
        w.op("CONV_2D", (x, wt, bt), (y,), "Conv2DOptions", **common)
    return w, x, y


def net(*args, **kwargs):
    w, x, y = conv(*args, **kwargs)
    return w.write([x], [y])


def unary(kind, table=None, shape=(1, 6, 6, 4), out=None, scale=(0.05, 0.05), zero=(3, 3), extra=(), dtype=np.int8,
          out_dtype=np.int8, constants=(), **fields):
    w = Writer()
    x = w.tensor(shape, dtype, scale[0], zero[0])
    y = w.tensor(out or shape, out_dtype, scale[1], zero[1])
    w.op(kind, (x, *(w.const(c, *((scale[1], zero[1]) if c.dtype == np.int8 else ())) for c in constants), *extra), (y,),
         table, **fields)
    return w.write([x], [y])


def pool(kind, shape=(1, 6, 6, 4), kernel=(2, 2), stride=(2, 2), same=False, act=0, scale=(0.05, 0.05), zero=(3, 3)):
    size = [-(-n // s) if same else (n - k) // s + 1 for n, k, s in zip(shape[1:3], kernel, stride, strict=True)]
    return unary(kind, "Pool2DOptions", shape, (1, *size, shape[3]), scale, zero, Padding=0 if same else 1, StrideH=stride[0],
                 StrideW=stride[1], FilterHeight=kernel[0], FilterWidth=kernel[1], FusedActivationFunction=act)


def dense(inputs=20, outputs=7, wzero=0, per_channel=False, act=0, fmt=0, shape=None, keep=False, bias=True):
    rng, w = np.random.default_rng(3), Writer()
    x = w.tensor(shape or (1, inputs), np.int8, 0.05, -7)
    n = outputs if per_channel else 1
    wt = w.const(rng.integers(-127, 128, (outputs, inputs)).astype(np.int8), rng.uniform(0.001, 0.003, n), [wzero] * n)
    bt = w.const(rng.integers(-4000, 4000, outputs).astype(np.int32)) if bias else -1
    y = w.tensor((1, outputs), np.int8, 0.1, 9)
    w.op("FULLY_CONNECTED", (x, wt, bt), (y,), "FullyConnectedOptions", FusedActivationFunction=act,
         WeightsFormat=fmt, KeepNumDims=keep)
    return w.write([x], [y])


def two(kind, scales=(0.05, 0.08, 0.1), zeros=(3, -9, 5), shapes=None, act=0, **fields):
    """Two branches of one input, each through a QUANTIZE of its own, joined by an operator."""
    w = Writer()
    shape = (1, 6, 6, 4)
    x = w.tensor(shape, np.int8, 0.07, 1)
    a, b = w.tensor(shape, np.int8, scales[0], zeros[0]), w.tensor(shape, np.int8, scales[1], zeros[1])
    out = (1, 6, 6, 8) if kind == "CONCATENATION" else shape
    y = w.tensor(out, np.int8, scales[2], zeros[2])
    w.op("QUANTIZE", (x,), (a,), "QuantizeOptions")
    w.op("QUANTIZE", (x,), (b,), "QuantizeOptions")
    w.op(kind, (a, b), (y,), {"ADD": "AddOptions", "CONCATENATION": "ConcatenationOptions"}[kind],
         FusedActivationFunction=act, **fields)
    return w.write([x], [y])


def shared_weights():
    w, x, y = conv(shape=(1, 6, 6, 4), out=4, out_zero=3, out_scale=0.05)
    kind, ins, _, table, fields = w.ops[0]
    z = w.tensor((1, 6, 6, 4), np.int8, 0.3, 2)
    w.op(kind, (y, *ins[1:]), (z,), table, **fields)
    return w.write([x], [z])


def unused_output():
    w, x, y = conv()
    kind, ins, _, table, fields = w.ops[0]
    z = w.tensor((1, 7, 6, 6), np.int8, 0.3, 2)
    w.op(kind, ins, (z,), table, **fields)
    return w.write([x], [y])


def softmax(behind=""):
    w = Writer()
    x, y = w.tensor((1, 12), np.int8, 0.2, 4), w.tensor((1, 12), np.int8, 1 / 256, -128)
    w.op("SOFTMAX", (x,), (y,), "SoftmaxOptions", Beta=1.0)
    if behind:
        z = w.tensor((1, 12), np.int8, 1 / 256 if behind == "RELU" else 0.02, -128)
        w.op(behind, (y,), (z,), "QuantizeOptions" if behind == "QUANTIZE" else None)
        return w.write([x], [z])
    return w.write([x], [y])


def top_k():
    w = Writer()
    x = w.tensor((1, 12), np.int8, 0.2, 4)
    values, places = w.tensor((1, 3), np.int8, 0.2, 4), w.tensor((1, 3), np.int32, (), ())
    w.op("TOPK_V2", (x, w.const(np.array(3, np.int32))), (values, places), "TopKV2Options")
    return w.write([x], [places])


def uint8_in_the_middle():
    w = Writer()
    x, y, z = w.tensor((1, 12), np.int8, 0.2, 4), w.tensor((1, 12), np.uint8, 0.2, 132), w.tensor((1, 12), np.int8, 0.2, 4)
    w.op("QUANTIZE", (x,), (y,), "QuantizeOptions")
    w.op("QUANTIZE", (y,), (z,), "QuantizeOptions")
    return w.write([x], [z])


def float_ends():
    w = Writer()
    f, x = w.tensor((1, 6), np.float32, (), ()), w.tensor((1, 6), np.int8, 0.1, 4)
    y, g = w.tensor((1, 6), np.int8, 0.05, -3), w.tensor((1, 6), np.float32, (), ())
    w.op("QUANTIZE", (f,), (x,), "QuantizeOptions")
    w.op("RELU", (x,), (y,))
    w.op("DEQUANTIZE", (y,), (g,), "DequantizeOptions")
    return w.write([f], [g])


def variable():
    w, x, y = conv()
    w.tensors[x] = (*w.tensors[x][:-1], True)
    return w.write([x], [y])


def two_inputs():
    w, x, y = conv()
    return w.write([x, w.tensor((1, 4))], [y])


def batch_of_4():
    w = Writer()
    x, y, z = w.tensor((4, 6, 4, 3)), w.tensor((4, 3, 2, 3)), w.tensor((4, 3))
    w.op("MAX_POOL_2D", (x,), (y,), "Pool2DOptions", Padding=1, StrideH=2, StrideW=2, FilterHeight=2, FilterWidth=2)
    w.op("MEAN", (y, w.const(np.array([1, 2], np.int32))), (z,), "ReducerOptions", KeepDims=False)
    return w.write([x], [z])


TRAPS = {
    # convolutions
    "plain": (net(), EXACT),
    "same_stride_2": (net(stride=(2, 2), shape=(1, 8, 8, 4)), EXACT),
    "same_stride_3_rectangular": (net(stride=(3, 2), kernel=(5, 4)), EXACT),
    "valid": (net(same=False, kernel=(4, 2)), EXACT),
    "kernel_10x4": (net(shape=(1, 49, 10, 1), kernel=(10, 4), stride=(2, 2)), EXACT),
    "groups": (net(groups=2), EXACT),
    "dilation": (net(dilation=(2, 2)), EXACT),
    "dilation_valid": (net(dilation=(2, 1), same=False), EXACT),
    "depthwise": (net(depthwise=1), EXACT),
    "depthwise_stride_2": (net(depthwise=1, stride=(2, 2)), EXACT),
    "depth_multiplier_2": (net(depthwise=2), EXACT),
    "depth_multiplier_that_lies": (net(depthwise=2, multiplier=1), "depth_multiplier = 1 does not fit"),
    "relu": (net(act=1), EXACT),
    "relu6": (net(act=3, out_scale=0.02, out_zero=-128), EXACT),
    "relu_n1_to_1": (net(act=2, out_scale=0.02), EXACT),
    "tanh": (net(act=4), "TANH is not supported"),
    "no_bias": (net(bias=False), EXACT),
    "input_zero_point_at_the_end": (net(zero=-128), EXACT),
    "per_channel_scales": (net(scales=np.array([1e-4, 3e-3, 2e-3, 1e-2, 5e-4, 1e-3])), EXACT),
    "one_scale": (net(scales=np.array([2e-3])), EXACT),
    "factor_above_one": (net(scales=np.full(6, 0.03), out_scale=0.001), EXACT),
    "scale_power_of_two_ties": (net(scales=np.full(6, 2.0 ** -8), out_scale=0.05), EXACT),
    "weight_zero_point": (net(wzero=4), "zero points"),
    "scales_along_a_wrong_axis": (net(axis=3), "along axis 3"),
    "scales_too_few": (net(scales=np.array([1e-3, 2e-3])), "2 scales"),
    "scale_nan": (net(scales=np.array([np.nan] * 6)), "positive and finite"),
    "scale_zero": (net(scales=np.zeros(6)), "positive and finite"),
    "uint8_weights": (net(wdtype=np.uint8), "must be a constant of INT8"),
    "int16_activations": (net(x_dtype=np.int16), "INT16"),
    # fully connected
    "dense": (dense(), EXACT),
    "dense_weight_zero_point": (dense(wzero=-3), EXACT),
    "dense_per_channel": (dense(per_channel=True), EXACT),
    "dense_per_channel_zero_point": (dense(per_channel=True, wzero=2), "per-channel weights with zero points"),
    "dense_relu_no_bias": (dense(act=1, bias=False), EXACT),
    "dense_shuffled_weights": (dense(fmt=1), "weights_format = 1"),
    "dense_of_an_image": (dense(inputs=24, shape=(1, 2, 3, 4)), EXACT),
    "dense_pixel_by_pixel": (dense(inputs=4, shape=(1, 2, 3, 4)), "puts pixels into the batch"),
    # pools
    "max_pool": (pool("MAX_POOL_2D"), EXACT),
    "max_pool_overlapping": (pool("MAX_POOL_2D", kernel=(3, 3), same=True), EXACT),
    "max_pool_relu6": (pool("MAX_POOL_2D", act=3, scale=(0.06, 0.06)), EXACT),
    "max_pool_rescaling": (pool("MAX_POOL_2D", scale=(0.05, 0.06)), "differ, for which"),
    "average_pool": (pool("AVERAGE_POOL_2D"), EXACT),
    "average_pool_3x3": (pool("AVERAGE_POOL_2D", kernel=(3, 3), stride=(1, 1), zero=(-128, -128)), EXACT),
    "average_pool_whole": (pool("AVERAGE_POOL_2D", kernel=(6, 6), act=1), EXACT),
    "average_pool_border": (pool("AVERAGE_POOL_2D", kernel=(3, 3), stride=(1, 1), same=True), EXACT),
    "average_pool_border_stride": (pool("AVERAGE_POOL_2D", (1, 7, 5, 3), kernel=(4, 2), stride=(2, 2), same=True, zero=(-128, -128),
                                        act=1), EXACT),
    "average_pool_border_alone": (pool("AVERAGE_POOL_2D", (1, 2, 5, 3), kernel=(5, 1), stride=(1, 1), same=True), EXACT),
    "average_pool_rescaling": (pool("AVERAGE_POOL_2D", zero=(3, 4)), "differ, for which"),
    "mean": (unary("MEAN", "ReducerOptions", out=(1, 1, 1, 4), scale=(0.05, 0.03), constants=[np.array([1, 2], np.int32)],
                   KeepDims=True), EXACT),
    "mean_flat": (unary("MEAN", "ReducerOptions", shape=(1, 3, 3, 4), out=(1, 4), scale=(0.05, 0.03), zero=(-7, 90),
                        constants=[np.array([1, 2], np.int32)], KeepDims=False), EXACT),
    "mean_same_scale": (unary("MEAN", "ReducerOptions", shape=(1, 3, 3, 4), out=(1, 1, 1, 4),
                              constants=[np.array([1, 2], np.int32)], KeepDims=True), EXACT),
    "mean_of_channels": (unary("MEAN", "ReducerOptions", out=(1, 6, 6, 1), constants=[np.array([3], np.int32)], KeepDims=True),
                         "axes"),
    # joins
    "add": (two("ADD"), EXACT),
    "add_equal_scales": (two("ADD", scales=(0.05, 0.05, 0.1), zeros=(0, 0, 0)), EXACT),
    "add_far_scales": (two("ADD", scales=(0.3, 0.004, 0.25)), EXACT),
    "add_relu": (two("ADD", act=1), EXACT),
    "add_tiny_output": (two("ADD", scales=(0.05, 0.08, 0.01)), EXACT),
    "concat": (two("CONCATENATION", scales=(0.05,) * 3, zeros=(3,) * 3, Axis=3), EXACT),
    "concat_negative_axis": (two("CONCATENATION", scales=(0.05,) * 3, zeros=(3,) * 3, Axis=-1), EXACT),
    "concat_rows": (two("CONCATENATION", scales=(0.05,) * 3, zeros=(3,) * 3, Axis=1), "axis = 1"),
    "concat_other_scales": (two("CONCATENATION", Axis=3), "differ, for which"),
    # the rest
    "quantize": (unary("QUANTIZE", "QuantizeOptions", scale=(0.05, 0.031), zero=(3, -60)), EXACT),
    "quantize_uint8": (unary("QUANTIZE", "QuantizeOptions", dtype=np.uint8, zero=(131, 3)), EXACT),
    "relu_rescaling": (unary("RELU", scale=(0.05, 0.03), zero=(3, -128)), EXACT),
    "relu6_alone": (unary("RELU6", scale=(0.06, 0.06), zero=(-20, -20)), EXACT),
    "relu6_rescaling": (unary("RELU6", scale=(0.06, 0.04), zero=(3, -100)), "differ, for which"),
    "relu_n1_to_1_alone": (unary("RELU_N1_TO_1"), "RELU_N1_TO_1.*is not supported"),
    "pad": (unary("PAD", "PadOptions", out=(1, 9, 7, 4), constants=[np.array([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32)]), EXACT),
    "pad_value": (unary("PADV2", "PadV2Options", out=(1, 8, 6, 4), constants=[np.array([[0, 0], [1, 1], [0, 0], [0, 0]], np.int32),
                                                                              np.array([-9], np.int8)]), EXACT),
    "pad_channels": (unary("PAD", "PadOptions", out=(1, 6, 6, 5), constants=[np.array([[0, 0], [0, 0], [0, 0], [0, 1]], np.int32)]),
                     "paddings"),
    "resize": (unary("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", out=(1, 12, 18, 4),
                     constants=[np.array([12, 18], np.int32)]), EXACT),
    "resize_half_pixel": (unary("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", out=(1, 12, 12, 4),
                                constants=[np.array([12, 12], np.int32)],
                                HalfPixelCenters=True), EXACT),
    "resize_align_corners": (unary("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", out=(1, 12, 12, 4),
                                   constants=[np.array([12, 12], np.int32)],
                                   AlignCorners=True), "align_corners"),
    "resize_by_fractions": (unary("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", out=(1, 9, 9, 4),
                                  constants=[np.array([9, 9], np.int32)]),
                            "integer factors"),
    "flatten": (unary("RESHAPE", "ReshapeOptions", out=(1, 144), constants=[np.array([1, 144], np.int32)]), EXACT),
    "reshape_of_the_input": (unary("RESHAPE", "ReshapeOptions", shape=(1, 144), out=(1, 6, 6, 4),
                                   constants=[np.array([1, 6, 6, 4], np.int32)]), EXACT),
    "reshape_batch": (unary("RESHAPE", "ReshapeOptions", out=(2, 72), constants=[np.array([2, 72], np.int32)]),
                      "changes the batch"),
    "sequence": (unary("EXPAND_DIMS", "ExpandDimsOptions", shape=(1, 9, 4), out=(1, 1, 9, 4), constants=[np.array([1], np.int32)]),
                 EXACT),
    "shared_weights": (shared_weights(), EXACT),
    "unused_output": (unused_output(), EXACT),
    "softmax_last": (softmax(), EXACT),
    "softmax_in_the_middle": (softmax("RELU"), "in the middle"),
    "float_ends": (float_ends(), EXACT),
    "softmax_quantized_once_more": (softmax("QUANTIZE"), EXACT),
    "logistic_last": (unary("LOGISTIC", scale=(0.05, 1 / 256), zero=(3, -128)), EXACT),
    "tanh_alone": (unary("TANH"), "TANH.*is not supported; supported: ADD"),
    "uint8_output": (unary("QUANTIZE", "QuantizeOptions", zero=(3, 131), out_dtype=np.uint8), EXACT),
    "uint8_in_the_middle": (uint8_in_the_middle(), "UINT8; supported: INT8, and UINT8 in front of"),
    "transpose_of_axes_of_1": (unary("TRANSPOSE", "TransposeOptions", shape=(1, 6, 1, 4), out=(1, 1, 6, 4),
                                     constants=[np.array([0, 2, 1, 3], np.int32)]), EXACT),
    "transpose_of_the_input": (unary("TRANSPOSE", "TransposeOptions", shape=(1, 4, 6, 5), out=(1, 6, 5, 4),
                                     constants=[np.array([0, 2, 3, 1], np.int32)]), EXACT),
    "transpose_of_the_batch": (unary("TRANSPOSE", "TransposeOptions", shape=(1, 6, 5, 4), out=(6, 1, 5, 4),
                                     constants=[np.array([1, 0, 2, 3], np.int32)]),
                               "the permutation"),
    "slice_of_data": (unary("STRIDED_SLICE", "StridedSliceOptions", out=(1, 6, 3, 4), constants=[np.array(v, np.int32) for v in (
        [0, 0, 0, 0], [1, 6, 3, 4], [1, 1, 1, 1])]), EXACT),
    "reduce_max": (unary("REDUCE_MAX", "ReducerOptions", out=(1, 1, 1, 4), constants=[np.array([1, 2], np.int32)], KeepDims=True),
                   EXACT),
    "reduce_max_of_the_height": (unary("REDUCE_MAX", "ReducerOptions", out=(1, 1, 6, 4), constants=[np.array([1], np.int32)],
                                       KeepDims=True), "axes"),
    "top_k": (top_k(), "TOPK_V2.*is not supported: TensorFlow Lite Micro.*has no kernel for it; take ARG_MAX"),
    "custom": (unary("CUSTOM"), "custom operator 'mine'"),
    "transpose_conv": (unary("TRANSPOSE_CONV", "TransposeConvOptions"), "TRANSPOSE_CONV"),
    "dynamic_shape": (unary("RELU", shape=(0, 6, 6, 4)), "all of them known"),
    "batch_of_4": (unary("RELU", shape=(4, 6, 6, 4)), EXACT),
    "batch_of_4_flattened": (unary("RESHAPE", "ReshapeOptions", shape=(4, 3, 2, 5), out=(4, 30),
                                   constants=[np.array([4, 30], np.int32)]), EXACT),
    "batch_of_4_pooled": (batch_of_4(), EXACT),
    "batch_of_4_becomes_pixels": (unary("RESHAPE", "ReshapeOptions", shape=(4, 6, 6, 4), out=(2, 12, 6, 4),
                                        constants=[np.array([2, 12, 6, 4], np.int32)]),
                                  "a batch of 4; accepted: a batch of 1, or one"),
    "huge_tensor": (unary("RELU", shape=(1, 1 << 20, 1 << 20, 4)), "the limit is"),
    "wrong_output_shape": (unary("RELU", out=(1, 6, 6, 5)), "the file says"),
    "variable": (variable(), "is a variable"),
    "two_inputs": (two_inputs(), "2 inputs"),
}


@pytest.mark.parametrize("name", TRAPS)
def test_refused_or_exact(name, tmp_path):
    imported = imported_or_refused(tmp_path / "trap.tflite", *TRAPS[name])
    if imported is None:
        return
    node = imported.graph.input
    rng = np.random.default_rng(5)
    codes = rng.integers(node.lo, node.hi + 1, (6, *node.shape))
    codes[0], codes[1] = node.lo, node.hi
    run(imported.graph, codes)
    pytest.importorskip("tflite_micro", reason="imports; the package tflite-micro is not installed, so nothing is compared")
    report = compare_tflite(imported, codes)
    assert report.rows or name in ("softmax_last", "softmax_quantized_once_more", "logistic_last", "sequence",
                                   "reshape_of_the_input", "transpose_of_axes_of_1", "transpose_of_the_input")
    report.require_equal()


def test_there_are_enough():
    assert len(TRAPS) >= 75
