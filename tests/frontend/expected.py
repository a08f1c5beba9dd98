"""What a table of files says of each: `EXACT`, or a pattern of the refusal."""

import pytest

from hwq.errors import HwqError
from hwq.frontend.importer import import_file

__all__ = ["EXACT", "imported_or_refused"]

EXACT = None


def imported_or_refused(path, content, expected):
    """Write the file and import it: return the network, or None where it is refused as expected."""
    path.write_bytes(content)
    if expected is EXACT:
        return import_file(path)
    with pytest.raises(HwqError, match=expected):
        import_file(path)
    return None
