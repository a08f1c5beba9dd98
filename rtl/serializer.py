"""From the ``pe`` sums of a window to a narrower stream, so that the requantizer needs few lanes."""

from .shapers import WidthConverter

__all__ = ["Serializer"]


class Serializer(WidthConverter):
    """Send ``pe`` sums as ``pe / lanes`` beats; a new set is taken in the cycle in which the last beat leaves,
    or, if ``relaxed``, in the one after.

    Parameters and members as for `WidthConverter`.
    """
