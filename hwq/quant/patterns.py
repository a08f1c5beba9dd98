"""Which format goes to which layer: names and fnmatch patterns."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from ..errors import FormatError, ModelError
from ..formats import Spec, parse_spec

__all__ = ["assign"]


def assign(layers: Iterable[str], specs: Mapping[str, str] | str, what: str) -> dict[str, Spec]:
    """Return each layer's spec: that of its exact name, else of the first pattern that matches.

    Parameters
    ----------
    layers : iterable of str
        Dotted names.
    specs : dict of pattern to spec text, or one text for all
        `fnmatch` patterns, such as ``"features.*"``.
    what : str
        For messages: ``"weights"`` or ``"activations"``.

    Raises
    ------
    ModelError
        A pattern that matches no layer, or a layer without a format; the message names the layers.
    FormatError
        A text that is no format; the message names the pattern.
    """
    names = list(layers)
    if not isinstance(specs, str | Mapping):
        raise ModelError(f"Formats of the {what} must be a text such as 'dfp:b=4', or a dict from layer pattern "
                         f"to text, not {specs!r}")
    table = {"*": specs} if isinstance(specs, str) else dict(specs)
    parsed = {}
    for pattern, text in table.items():
        try:
            parsed[pattern] = parse_spec(text, clamp=True)
        except FormatError as error:
            raise FormatError(f"Format of the {what} of '{pattern}': {error}") from None
    unused = [pattern for pattern in table if not any(name == pattern or fnmatchcase(name, pattern) for name in names)]
    if unused and not (isinstance(specs, str) and not names):
        raise ModelError(f"No layer matches the pattern {', '.join(map(repr, unused))} for {what}; "
                         f"layers: {', '.join(names) or 'none'}")
    result = {}
    for name in names:
        found = name if name in parsed else next((p for p in parsed if fnmatchcase(name, p)), None)
        if found is not None:
            result[name] = parsed[found]
    missing = [name for name in names if name not in result]
    if missing:
        raise ModelError(f"No format for the {what} of layer {', '.join(map(repr, missing))}; given patterns: "
                         f"{', '.join(map(repr, table)) or 'none'}. Add them, or a pattern '*'")
    return result
