"""``hwq run``: images through a board, or through the compiled simulation of its shell."""

import json as json_
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import typer

from ..arith import width_of
from ..boards.host import Link, SerialLike, check_port, open_port
from ..boards.registry import DEFAULT_BAUD
from ..data import one_or_several, pictures
from ..emit import element_bytes, pack_codes, unpack_results
from ..errors import FormatError, ModelError, VerifyError
from ..interp import check_labels, encode_images, predict, run_batches
from ..ir import Graph, content_hash, load

__all__ = ["command", "read_images", "input_codes", "run_images", "pack_frame", "unpack_result"]


def _read_png(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise ModelError(f"The network's input {shape} is no grey or colour picture: give its input as .npy or .npz")
    try:
        with Image.open(path) as image:
            picture = np.asarray(image.convert("L" if shape[2] == 1 else "RGB"), np.uint8)
    except UnidentifiedImageError:
        raise FormatError(f"{path} is no picture that can be read; give a PNG, a .npy or a .npz file") from None
    except (OSError, SyntaxError, ValueError) as error:      # pillow raises all three on damaged files
        raise FormatError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if picture.shape[:2] != shape[:2]:
        raise ModelError(f"{path} has {picture.shape[1]}x{picture.shape[0]} pixels; the network takes {shape[1]}x{shape[0]} "
                         "(width x height). Scale it first: hwq does not, because scaling is not exact")
    return picture.reshape(1, *shape)


def read_images(path: Path, graph: Graph) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a file's images (n, height, width, channels) and its labels if there are any.

    A .npz file holds ``images`` or ``signals`` and maybe ``labels``; a .npy file holds one image or several; anything else is a
    picture.

    Raises
    ------
    FormatError
        The file cannot be read or lacks the array.
    ModelError
        The picture's size is not the network's; a label is none of its classes.
    """
    shape = graph.input.shape
    if path.suffix not in (".npy", ".npz"):
        return _read_png(path, shape), None
    labels = None
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                images = pictures(file, shape, str(path))
                labels = file["labels"] if "labels" in file else None
        else:
            images = np.load(path, allow_pickle=False)
            if not isinstance(images, np.ndarray):
                raise FormatError(f"{path} is no .npy file but an archive: name it .npz")
            images = one_or_several(images, shape)
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, BadZipFile) as error:
        why = "it is no sound .npy or .npz file of plain numbers" if "pickle" in str(error) else str(error)
        raise FormatError(f"Cannot read {path}: {why}") from None
    if images.ndim == 3 and shape[-1:] == (1,):
        images = images[..., None]
    if labels is not None and labels.shape != images.shape[:1]:
        raise FormatError(f"{path} has {len(images)} images but labels of the shape {labels.shape}")
    if labels is not None:
        check_labels(graph, labels, str(path))
    return images, labels


def pack_frame(codes: np.ndarray, graph: Graph, in_bytes: int, in_beats: int) -> bytes:
    """Return one image's codes as the board's payload: the bytes of the core's beats, in order.

    Raises
    ------
    ModelError
        The board's frame has another size.
    """
    width, _ = width_of(graph.input.lo, graph.input.hi)
    if in_bytes * in_beats != codes.size * element_bytes(width) or in_bytes % element_bytes(width):
        raise ModelError(f"The board takes frames of {in_beats} beats of {in_bytes} bytes; the network's input has {codes.size} "
                         f"numbers of {width} bits")
    return pack_codes(codes[None], lanes=in_bytes // element_bytes(width), width=width).tobytes()


def unpack_result(payload: bytes, graph: Graph) -> np.ndarray:
    """Return the numbers in a result's payload, each in whole bytes.

    Raises
    ------
    ModelError
        The payload's size does not fit the network's output.
    """
    edge = graph.edges[graph.output.name]
    count = int(np.prod(edge.shape))
    size = len(payload) // count if count else 0
    if size == 0 or size > 8 or size * count != len(payload):
        raise ModelError(f"The board's result of {len(payload)} bytes does not fit the network's output {edge.shape}")
    beats = np.frombuffer(payload, np.uint8).reshape(1, count, size)
    return unpack_results(beats, signed=edge.lo < 0).reshape(edge.shape)


def input_codes(images: np.ndarray, graph: Graph, path: Path) -> np.ndarray:
    """Return the network's input codes of a file's images; a network without preprocessing takes the codes themselves.

    Raises
    ------
    ModelError
        The images have another shape or type than the network's, or a code lies outside its range.
    """
    node = graph.input
    if graph.preprocess:
        try:
            return encode_images(graph, images)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
    if images.shape[1:] != node.shape or images.dtype.kind not in "iu":
        raise ModelError(f"{path}: the network takes integers of the shape {node.shape}, not {images.dtype} of the shape "
                         f"{images.shape[1:]}")
    if images.size and (images.min() < node.lo or images.max() > node.hi):
        raise ModelError(f"{path}: input codes {images.min()}..{images.max()} lie outside {node.lo}..{node.hi}")
    return images


def run_images(link: Link, graph: Graph, codes: np.ndarray) -> Iterator[np.ndarray]:
    """Yield each image's output as the board gives it; checks first that the board runs this network."""
    board = link.identify(bytes.fromhex(content_hash(graph)))
    for image in codes:
        yield unpack_result(link.infer(pack_frame(image, graph, board.in_bytes, board.in_beats)), graph)


def _simulated(port: str) -> Path | None:
    """Return the build folder in ``sim:FOLDER``; None for any other port, ``sim:PROGRAM`` included."""
    return Path(port[4:]) if port.startswith("sim:") and Path(port[4:]).is_dir() else None


def _open(port: str, baud: int) -> SerialLike:
    """Open a port; a build folder's simulated board is compiled first."""
    folder = _simulated(port)
    if folder is None:
        return open_port(port, baud)
    from ..sim.folder import load_build
    from ..sim.link import compile_board
    from . import progress
    with progress("run") as say:
        say("compile the simulated board")
        program = compile_board(load_build(folder))
    return open_port(f"sim:{program}", baud)


def _find_model(model: Path | None, port: str) -> Path:
    if model:
        return model
    if folder := _simulated(port):
        return folder / "model.hwq"
    found = sorted(Path().glob("*.hwq"))
    if len(found) != 1:
        raise FormatError(f"Name the network with --model: this folder has {len(found)} .hwq files")
    return found[0]


def command(
    images: list[Path] = typer.Argument(help="Pictures (PNG), .npy, or .npz with 'images' and maybe 'labels'."),
    port: str = typer.Option(..., "--port", "-p",
                             help="Serial port, such as /dev/ttyUSB1, or sim:FOLDER: the simulated board of hwq build."),
    model: Path | None = typer.Option(None, "--model", "-m", help="The .hwq file the bitstream was built from; by default the one "
                                      "here, or the simulated board's."),
    baud: int | None = typer.Option(None,
                                    help=f"Line rate the bitstream was built for; default {DEFAULT_BAUD}. Of no use with sim:."),
    check: bool = typer.Option(False, "--check", help="Compare with the interpreter; exit 6 on a difference."),
    json: bool = typer.Option(False, "--json", help="Print one JSON object."),
):
    """Run images on a board and print class and outputs."""
    from rich.console import Console
    from rich.progress import Progress
    if baud is not None and port.startswith("sim:"):
        typer.echo("hwq: note: a simulated board has the rate it was built for; --baud is ignored", err=True)
    rate = DEFAULT_BAUD if baud is None or port.startswith("sim:") else baud
    # What is wrong with the port is said before what is wrong with the rest; wrong images, before it is opened.
    check_port(port, rate)
    if folder := _simulated(port):
        from ..sim.folder import load_build
        load_build(folder)
    graph = load(_find_model(model, port))
    read = [(path, *read_images(path, graph)) for path in images]
    names = [f"{path}[{k}]" if len(batch) > 1 else str(path) for path, batch, _ in read for k in range(len(batch))]
    labels = [None if marks is None else int(marks[k]) for _, batch, marks in read for k in range(len(batch))]
    if not names:
        raise FormatError("The files hold no image")
    codes = np.concatenate([input_codes(batch, graph, path).astype(np.int64) for path, batch, _ in read])
    link = Link(_open(port, rate))
    outputs: list[np.ndarray] = []
    try:
        with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
            for output in bar.track(run_images(link, graph, codes), total=len(names), description="images"):
                outputs.append(output)
    finally:
        link.close()
    stacked = np.stack(outputs)
    classes = predict(graph, stacked)
    expected = run_batches(graph, codes) if check else None
    differ = [] if expected is None else [k for k in range(len(names)) if not np.array_equal(stacked[k], expected[k])]
    judged = [k for k, label in enumerate(labels) if label is not None]
    right = sum(int(classes[k]) == labels[k] for k in judged)
    if json:
        rows = [{"image": names[k], "class": int(classes[k]), "name": graph.classes[classes[k]] if graph.classes else None,
                 "label": labels[k], "output": stacked[k].reshape(-1).tolist()} for k in range(len(names))]
        typer.echo(json_.dumps({"network": graph.name, "images": rows, "labelled": len(judged), "right": right,
                                "checked": check, "different": [names[k] for k in differ]}, indent=1))
    else:
        for k, name in enumerate(names):
            word = f" {graph.classes[classes[k]]}" if graph.classes else ""
            mark = "" if labels[k] is None else " right" if labels[k] == classes[k] else f" wrong (label {labels[k]})"
            typer.echo(f"{name}: {classes[k]}{word}{mark}  {' '.join(map(str, stacked[k].reshape(-1)))}")
        if judged:
            typer.echo(f"{right} of {len(judged)} right ({100 * right / len(judged):.2f} %)")
        if check and not differ:
            typer.echo(f"All {len(names)} results equal the interpreter's")
    if differ:
        k = differ[0]
        assert expected is not None
        raise VerifyError(f"{len(differ)} of {len(names)} results differ from the interpreter's; the first is {names[k]}: "
                          f"board {stacked[k].reshape(-1).tolist()}, interpreter {expected[k].reshape(-1).tolist()}")
