"""Reference networks: their published parameter counts, and what prepare says to them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from hwq.frontend import convert, trace_codes  # noqa: E402
from hwq.interp import encode_images, run  # noqa: E402
from hwq.models import allcnn, fashion, resnet8  # noqa: E402
from hwq.quant import calibrate, prepare  # noqa: E402


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_all_cnn_c_is_the_published_one():
    model = allcnn.network()
    assert count(model) == 1_369_738 and count(allcnn.network(classes=100)) == 1_387_108
    weights = [layer.weight.numel() for layer in model if isinstance(layer, nn.Conv2d)]
    assert weights == [2592, 82944, 82944, 165888, 331776, 331776, 331776, 36864, 1920]
    shapes = []
    x = torch.zeros(1, 3, 32, 32)
    for layer in model.eval():
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            shapes.append(x.shape[2])
    assert shapes == [32, 32, 16, 16, 16, 8, 6, 6, 6] and x.shape == (1, 10)
    narrow = sum(layer.weight.numel() for layer in allcnn.network(width=0.125, batchnorm=True) if isinstance(layer, nn.Conv2d))
    assert 20_000 < narrow < 24_000
    assert all(layer.bias is None for name, layer in allcnn.network(batchnorm=True).named_children()
               if name.startswith("conv") and name != "conv9")


@pytest.mark.parametrize("last_relu", [True, False])
def test_a_narrow_all_cnn_lowers_exactly(last_relu):
    torch.manual_seed(0)
    net = allcnn.network(width=0.05, batchnorm=True, last_relu=last_relu)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous() / 256
    net.train()(x)
    model = prepare(net.eval(), x, {"conv1": "dfp:b=8", "conv5": "po2:b=3", "*": "dfp:b=3"}, activations="dfp:b=8")
    calibrate(model, [x])
    graph = convert(model.eval())
    reference, traced = run(graph, encode_images(graph, images)), trace_codes(model, images)
    assert set(reference) == set(traced)
    for name, value in reference.items():
        np.testing.assert_array_equal(traced[name], value)


def test_resnet8_is_the_published_size():
    model = resnet8.network()
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert weights == 432 + 2 * 2304 + 4608 + 9216 + 512 + 18_432 + 36_864 + 2048 + 640
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_shipped_topology():
    assert sum(p.numel() for name, p in fashion.network().named_parameters() if p.ndim > 1) == 30_024
