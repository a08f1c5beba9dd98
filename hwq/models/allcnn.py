"""All-CNN-C (Springenberg and others, 2014, arXiv 1412.6806): nothing but convolutions, for images of 32x32 pixels."""

from collections import OrderedDict

from torch import nn

__all__ = ["network"]

# Channels at full width (0: the classes), kernel, stride, padding; dropout in front of it.
_LAYERS = ((96, 3, 1, 1, 0.2), (96, 3, 1, 1, 0.0), (96, 3, 2, 1, 0.0), (192, 3, 1, 1, 0.5), (192, 3, 1, 1, 0.0),
           (192, 3, 2, 1, 0.0), (192, 3, 1, 0, 0.5), (192, 1, 1, 0, 0.0), (0, 1, 1, 0, 0.0))


def network(classes: int = 10, width: float = 1.0, channels: int = 3, batchnorm: bool = False, dropout: bool = True,
            last_relu: bool = True) -> nn.Sequential:
    """Return an untrained All-CNN-C: 1,369,738 parameters for 10 classes, 1,387,108 for 100.

    Nine convolutions with ReLU, two of them with stride 2 instead of pooling, the seventh without padding as published
    (6x6 pixels from there on); global average; flatten.

    Parameters
    ----------
    classes : int
        Outputs.
    width : float
        Factor on the 96 and 192 channels; 0.125 has 22 k weights and 0.25 has 86 k.
    channels : int
        Of the images.
    batchnorm : bool
        Batch norm behind every convolution but the last, which then alone has a bias.
    dropout : bool
        0.2 on the image, 0.5 behind each layer of stride 2, as published.
    last_relu : bool
        ReLU behind the last convolution, as published; without it, its sums are averaged as they are.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    previous = channels
    for index, (full, kernel, stride, padding, drop) in enumerate(_LAYERS, start=1):
        last = full == 0
        count = classes if last else max(1, round(full * width))
        if drop and dropout:
            layers[f"drop{index}"] = nn.Dropout(drop)
        norm = batchnorm and not last
        layers[f"conv{index}"] = nn.Conv2d(previous, count, kernel, stride, padding, bias=not norm)
        if norm:
            layers[f"bn{index}"] = nn.BatchNorm2d(count)
        if not last or last_relu:
            layers[f"relu{index}"] = nn.ReLU()
        previous = count
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)
