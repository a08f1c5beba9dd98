"""Files that tools themselves write today: torch's two ONNX exporters, then onnxruntime's static quantization."""

import logging
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static  # noqa: E402
from torch import nn  # noqa: E402

from hwq.frontend.importer import compare_source, import_file  # noqa: E402

from .test_torch_networks import NETWORKS, Inverted, liven  # noqa: E402


class Relu6(nn.Module):
    """What torch's own quantization does not take here: ReLU6, ceil_mode, a mean over the image, softmax."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6(),
                                  Inverted(4, 6, 4, 1), nn.Conv2d(4, 4, 3, 1, 1, groups=4),
                                  nn.Hardtanh(0, 6), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, 1))
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return torch.softmax(self.fc(torch.flatten(self.body(x).mean([2, 3]), 1)), 1)


def sigmoid():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(3, 1), nn.Sigmoid())


EXPORTED = {name: NETWORKS[name] for name in ("squeeze", "unet", "squeezenet", "mobilenet")} \
    | {"relu6": (Relu6, (1, 12, 12)), "sigmoid": (sigmoid, (1, 8, 8))}
QUANTIZED = {"channel": dict(activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True),
             "symmetric": dict(activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
                               extra_options={"ActivationSymmetric": True}),
             "reduced": dict(activation_type=QuantType.QUInt8, weight_type=QuantType.QUInt8, reduce_range=True)}


class Reader(CalibrationDataReader):
    def __init__(self, shape):
        rng = np.random.default_rng(0)
        self.batches = iter([{"x": rng.uniform(0, 1, (1, *shape)).astype(np.float32)} for _ in range(6)])

    def get_next(self):
        return next(self.batches, None)


@pytest.mark.parametrize("name, dynamo, how", [
    ("squeeze", False, "channel"), ("unet", False, "symmetric"), ("squeezenet", True, "channel"), ("mobilenet", True, "reduced"),
    ("relu6", True, "channel"), ("relu6", False, "symmetric"), ("sigmoid", False, "channel")])
def test_files_of_exporters_are_exact(name, dynamo, how, tmp_path):
    if dynamo:
        pytest.importorskip("onnxscript", reason="the package onnxscript is not installed")
    make, shape = EXPORTED[name]
    torch.manual_seed(0)
    net = make()
    liven(net)
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (torch.rand(1, *shape),), str(tmp_path / "f.onnx"), dynamo=dynamo, opset_version=18 if dynamo
                          else 13, input_names=["x"], verbose=False, **({"external_data": False} if dynamo else {}))
        quantize_static(str(tmp_path / "f.onnx"), str(tmp_path / "q.onnx"), Reader(shape),
                        quant_format=QuantFormat.QDQ, **QUANTIZED[how])
    logging.disable(logging.NOTSET)
    assert compare_source(import_file(tmp_path / "q.onnx"), count=4).wrong == 0
