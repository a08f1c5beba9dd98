"""Readers of data sets: sound files, and every kind of unsound one."""

import gzip
import hashlib
import urllib.error

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwq.data import DATASETS, Dataset, load_dataset, load_images, open_dataset, read_idx, read_npz, write_npz
from hwq.data import source as source_module
from hwq.data.source import Source, cache_folder, fetch
from hwq.errors import EnvironmentError_, FormatError


def idx(array):
    code = {"uint8": 8, "int16": 0x0B, "float32": 0x0D}[array.dtype.name]
    shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, code, array.ndim]) + shape + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
LABELS = np.array([0, 9, 3, 3, 1], np.uint8)


def folder(path, images=IMAGES, labels=LABELS, end="", pack=lambda data: data):
    for stem, array in (("images-idx3", images), ("labels-idx1", labels)):
        (path / f"t10k-{stem}-ubyte{end}").write_bytes(pack(idx(array)))
    return path


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["uint8", "int16", "float32"]), st.lists(st.integers(0, 4), min_size=1, max_size=4), st.booleans())
def test_idx_round_trip(tmp_path_factory, dtype, shape, zipped):
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    found = read_idx(path)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("data, text", [
    (b"", "no IDX file"), (b"PK\x03\x04abc", "no IDX file"), (b"\0\0\x08\x01\0\0", "truncated: its header"),
    (idx(LABELS)[:-1], "truncated: shape"), (idx(LABELS) + b"x", "too long"),
    (gzip.compress(idx(LABELS), mtime=0)[:-6], "truncated or damaged"), (b"\x1f\x8b\x08\x00garbage", "truncated or damaged"),
    (b"\0\0\x08\x01" + b"\xff" * 16, "truncated: shape"), (idx(IMAGES), "holds 3 axes, expected 1"),
])
def test_unsound_idx_is_refused(tmp_path, data, text):
    path = tmp_path / "labels"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=text):
        read_idx(path, 1)
    with pytest.raises(FormatError, match="Cannot read"):
        read_idx(tmp_path / "none")


@pytest.mark.parametrize("end, pack", [("", lambda d: d), (".gz", gzip.compress)])
def test_folder_as_published(tmp_path, end, pack):
    data = load_dataset("fashion-mnist", folder(tmp_path, end=end, pack=pack))
    np.testing.assert_array_equal(data.images, IMAGES)
    assert data.labels.tolist() == LABELS.tolist() and data.classes[9] == "Ankle boot" and len(data) == 5
    assert load_dataset("mnist", tmp_path).classes == tuple("0123456789")
    assert open_dataset(tmp_path).part(slice(0, 2)).labels.tolist() == [0, 9]
    with pytest.raises(FormatError, match="train-images-idx3-ubyte"):
        load_dataset("mnist", tmp_path, "train")


def test_requests_that_cannot_be_met(tmp_path):
    with pytest.raises(FormatError, match="known: fashion-mnist, mnist"):
        load_dataset("imagenet")
    with pytest.raises(FormatError, match="'train' or 'test'"):
        load_dataset("mnist", tmp_path, "dev")
    with pytest.raises(FormatError, match="no folder"):
        load_dataset("mnist", tmp_path / "none")
    with pytest.raises(FormatError, match="5 images, but 4 labels"):
        load_dataset("mnist", folder(tmp_path, labels=LABELS[:4]))
    with pytest.raises(FormatError, match="label 10 is outside 0..9"):
        load_dataset("mnist", folder(tmp_path, labels=LABELS + np.uint8(7) * (LABELS == 3)))


def test_npz_round_trip(tmp_path):
    write_npz(tmp_path / "a.npz", Dataset(IMAGES, LABELS, ("a", "b")))
    write_npz(tmp_path / "b.npz", Dataset(IMAGES, LABELS, ("a", "b")))
    found = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.images, IMAGES)
    assert found.labels.tolist() == LABELS.tolist() and found.classes == ("a", "b")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert open_dataset(tmp_path / "a.npz").classes == ("a", "b")


def test_images_without_labels(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    np.savez(tmp_path / "x.npz", images=IMAGES)
    for name in ("x.npy", "x.npz"):
        images, labels = load_images(tmp_path / name)
        assert labels is None and images.shape == IMAGES.shape
    with pytest.raises(FormatError, match="lacks labels"):
        read_npz(tmp_path / "x.npz")
    with pytest.raises(FormatError, match="lacks images and labels"):
        np.savez(tmp_path / "y.npz", other=IMAGES)
        read_npz(tmp_path / "y.npz")


def test_a_single_image_of_the_shape(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES[0])
    for shape in ((28, 28, 1), (28, 28)):
        assert load_images(tmp_path / "x.npy", shape=shape)[0].shape[0] == 1
    with pytest.raises(FormatError, match="images must be uint8 of shape"):
        load_images(tmp_path / "x.npy", shape=(14, 14, 1))


SIGNALS = np.random.default_rng(2).integers(0, 256, (5, 3, 8)).astype(np.uint8)


def test_signals_are_images_of_height_1(tmp_path):
    np.savez(tmp_path / "x.npz", signals=SIGNALS, labels=LABELS)
    data = open_dataset(tmp_path / "x.npz")
    assert data.signals and data.images.shape == (5, 1, 8, 3) and data.part(slice(2)).signals
    np.testing.assert_array_equal(data.images[3, 0, 5], SIGNALS[3, :, 5])
    write_npz(tmp_path / "y.npz", data)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["signals"], SIGNALS)
    np.savez(tmp_path / "z.npz", signals=SIGNALS[:, 0], labels=LABELS)          # (n, length)
    np.testing.assert_array_equal(open_dataset(tmp_path / "z.npz").images[:, 0, :, 0], SIGNALS[:, 0])
    assert not Dataset(IMAGES, LABELS).signals


@pytest.mark.parametrize("array, shape",
                         [(SIGNALS, (1, 8, 3)), (SIGNALS[1], (1, 8, 3)), (SIGNALS[:, 0], (1, 8, 1)), (SIGNALS[1, 0], (1, 8, 1)),
                          (SIGNALS[:, :1], (1, 8, 1)), (SIGNALS.transpose(0, 2, 1)[:, None], (1, 8, 3))])
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_signals_for_a_network_of_height_1(tmp_path, array, shape, name):
    if name == "x.npy":
        np.save(tmp_path / name, array)
    else:
        np.savez(tmp_path / name, **{"images" if array.ndim == 4 else "signals": array})
    images, labels = load_images(tmp_path / name, shape=shape)
    assert labels is None and images.shape[1:] == shape and images.size == array.size
    first = images[0, 0].T
    np.testing.assert_array_equal(first, SIGNALS[0 if array.size > 24 else 1][:shape[2]])


@pytest.mark.parametrize("arrays, text", [
    ({"signals": SIGNALS, "images": IMAGES, "labels": LABELS}, "holds both 'images' and 'signals'"),
    ({"signals": SIGNALS[0, 0], "labels": LABELS}, "signals must be uint8"),
    ({"signals": SIGNALS[..., None], "labels": LABELS}, "signals must be uint8"),
    ({"signals": SIGNALS.astype(np.int16), "labels": LABELS}, "must be uint8"),
])
def test_wrong_signals_are_refused(tmp_path, arrays, text):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(FormatError, match=text):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["nonsense", "fashion_mnist", "no/folder"])
def test_what_is_no_data_set(name):
    for load in (open_dataset, load_images):
        with pytest.raises(FormatError,
                           match=f"There is no data set, file or folder '{name}'; known data sets: fashion-mnist, mnist, .*npz"):
            load(name)


@pytest.mark.parametrize("name", ["g.png", "x.txt"])
def test_other_files_are_told_what_is_accepted(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x89PNG\r\n")
    for load in (open_dataset, load_images):
        with pytest.raises(FormatError,
                           match=f"{name} is no .npz or .npy file; accepted: an .npz file with 'images' and 'labels', an .npy"):
            load(tmp_path / name)


@pytest.mark.parametrize("arrays, text", [
    ({"images": IMAGES.astype(float), "labels": LABELS}, "uint8"), ({"images": IMAGES[0], "labels": LABELS}, "uint8 of shape"),
    ({"images": IMAGES, "labels": LABELS[:2]}, "5 images, but 2 labels"),
    ({"images": IMAGES, "labels": LABELS - 5.0}, "integers from 0"),
    ({"images": IMAGES, "labels": LABELS.astype(int) - 5}, "integers from 0"),
])
def test_wrong_arrays_are_refused(tmp_path, arrays, text):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(FormatError, match=text):
        read_npz(tmp_path / "x.npz")


def test_damaged_npz_is_refused_and_nothing_is_unpickled(tmp_path):
    write_npz(tmp_path / "a.npz", Dataset(IMAGES, LABELS))
    data = (tmp_path / "a.npz").read_bytes()
    for name, content in (("cut.npz", data[:len(data) // 2]), ("text.npz", b"hello"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match="no sound|no .npz or .npy file; accepted: an .npz file"):
            read_npz(tmp_path / name)
    np.savez(tmp_path / "p.npz", images=np.array([{}, {}], object), labels=LABELS[:2])
    with pytest.raises(FormatError,
                       match="p.npz is no sound .npz or .npy file: it holds Python objects, which hwq never loads; accepted: "):
        read_npz(tmp_path / "p.npz")


def toy(files):
    return Source("toy", files, ("https://one.invalid/", "https://two.invalid/"), ("/usr/share/toy",),
                  lambda f, s: None, lambda f, s: False)


def test_download(tmp_path, monkeypatch):
    asked = []

    def download(url):
        asked.append(url)
        if "one" in url:
            raise urllib.error.URLError("no route")
        return b"content"
    monkeypatch.setattr(source_module, "_download", download)
    fetch(toy({"a": hashlib.sha256(b"content").hexdigest()}), tmp_path / "cache")
    assert (tmp_path / "cache" / "a").read_bytes() == b"content" and asked == ["https://one.invalid/a", "https://two.invalid/a"]
    fetch(toy({"a": hashlib.sha256(b"content").hexdigest()}), tmp_path / "cache")
    assert len(asked) == 2                              # found in the cache
    with pytest.raises(FormatError, match="arrived with the SHA-256"):
        fetch(toy({"b": "0" * 64}), tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["a"]


def test_no_network_is_said_with_what_to_do(tmp_path, monkeypatch):
    def download(url):
        raise urllib.error.URLError("Name or service not known")
    monkeypatch.setattr(source_module, "_download", download)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(EnvironmentError_, match=r"Name or service not known.*Give a folder.*--data"):
        fetch(toy({"a": "0"}), cache_folder("toy"))
    assert cache_folder("toy") == tmp_path / "hwq" / "toy"


def test_checksums_are_complete():
    for source in DATASETS.values():
        assert source.files and all(len(digest) == (36 if digest.startswith("md5:") else 64) for digest in source.files.values())
