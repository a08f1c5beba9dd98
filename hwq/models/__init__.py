"""Reference networks, one topology a file; factories are named on the command line as ``hwq.models.fashion:network``."""

__all__: list[str] = []
