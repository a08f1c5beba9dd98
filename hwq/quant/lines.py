"""1-D layers and shapes as 2-D ones of height 1, which is what all behind the tracer knows."""

from typing import Any

from torch import nn

__all__ = ["widened", "wide"]


def wide(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without the batch: (channels, length) as (channels, 1, length), others as they are."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def _across(value: Any, height: int) -> Any:
    """Return a size along the line as (vertical, horizontal); 'same' and 'valid' as they are."""
    if isinstance(value, str):
        return value
    return (height, int(value[0] if isinstance(value, tuple | list) else value))


def _conv(layer: nn.Conv1d) -> nn.Conv2d:
    made = nn.Conv2d(layer.in_channels, layer.out_channels, _across(layer.kernel_size, 1),
                     _across(layer.stride, 1), _across(layer.padding, 0),
                     _across(layer.dilation, 1), layer.groups, bias=layer.bias is not None, padding_mode=layer.padding_mode)
    made.weight = nn.Parameter(layer.weight.detach().unsqueeze(2))
    made.bias = layer.bias
    return made


def _batchnorm(layer: nn.BatchNorm1d) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    made.load_state_dict(layer.state_dict())
    return made.to(next(iter([*layer.parameters(), *layer.buffers()])).device) \
        if layer.affine or layer.track_running_stats else made


def widened(layer: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Return a layer that reads (channels, length) as the 2-D layer of the same function; another as it is.

    Parameters
    ----------
    layer : nn.Module
        Its parameters are the result's, but for a batch norm's and a kernel's, which are copies.
    shape : tuple of int
        What it reads, without the batch.
    """
    if len(shape) != 2:
        return layer
    kind = type(layer)
    if isinstance(layer, nn.Conv1d) and kind is nn.Conv1d:
        return _conv(layer)
    if isinstance(layer, nn.BatchNorm1d) and kind is nn.BatchNorm1d:
        return _batchnorm(layer)
    if isinstance(layer, nn.MaxPool1d) and kind is nn.MaxPool1d:
        return nn.MaxPool2d(_across(layer.kernel_size, 1), _across(layer.stride, 1), _across(layer.padding, 0),
                            _across(layer.dilation, 1), layer.return_indices, layer.ceil_mode)
    if isinstance(layer, nn.AvgPool1d) and kind is nn.AvgPool1d:
        return nn.AvgPool2d(_across(layer.kernel_size, 1), _across(layer.stride, 1), _across(layer.padding, 0),
                            layer.ceil_mode, layer.count_include_pad)
    if isinstance(layer, nn.AdaptiveAvgPool1d) and kind is nn.AdaptiveAvgPool1d:
        return nn.AdaptiveAvgPool2d(_across(layer.output_size, 1))
    if isinstance(layer, nn.ConstantPad1d) and kind in (nn.ConstantPad1d, nn.ZeroPad1d):
        return nn.ConstantPad2d((*layer.padding, 0, 0), layer.value)          # type: ignore[arg-type]
    return layer
