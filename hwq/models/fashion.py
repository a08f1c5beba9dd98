"""The shipped network for Fashion-MNIST and MNIST: small enough for the block RAM of an iCE40 UP5K."""

from collections import OrderedDict

from torch import nn

__all__ = ["network", "network_without_batchnorm", "CLASSES"]

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def network(channels: tuple[int, int, int, int] = (8, 16, 32, 64), classes: int = 10, batchnorm: bool = True) -> nn.Sequential:
    """Return an untrained network for images of 28x28 pixels and one channel.

    3x3 convolutions with padding 1, each with batch norm and ReLU; 2x2 max pooling after the first three
    (28 -> 14 -> 7 -> 3); flatten; one linear layer. 30,024 weights and 0.68 M multiplications an image by default.

    Parameters
    ----------
    channels : four ints
        Output channels of the convolutions.
    classes : int
        Outputs of the linear layer.
    batchnorm : bool
        Leave batch norm out if false (the convolutions then have a bias).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    previous = 1
    for index, count in enumerate(channels, start=1):
        layers[f"conv{index}"] = nn.Conv2d(previous, count, 3, padding=1, bias=not batchnorm)
        if batchnorm:
            layers[f"bn{index}"] = nn.BatchNorm2d(count)
        layers[f"relu{index}"] = nn.ReLU()
        if index < 4:
            layers[f"pool{index}"] = nn.MaxPool2d(2)
        previous = count
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(previous * 9, classes)
    return nn.Sequential(layers)


def network_without_batchnorm() -> nn.Sequential:
    """Return `network` without batch norm."""
    return network(batchnorm=False)
