"""CIFAR in both layouts, SVHN, archives: written here as their authors write them, and the sizes that are known."""

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from hwq.data import load_dataset, load_images, open_dataset
from hwq.data import source as source_module
from hwq.data.source import Source, fetch
from hwq.errors import FormatError

RNG = np.random.default_rng(0)
PLANES = RNG.integers(0, 256, (5, 4, 3, 32, 32)).astype(np.uint8)                    # five batches of four images
LABELS = RNG.integers(0, 10, (5, 4))
pytestmark = pytest.mark.filterwarnings("ignore:.*differs from the published file")


def binary(folder):
    folder.mkdir(parents=True)
    for k in range(5):
        rows = [bytes([LABELS[k, i]]) + PLANES[k, i].tobytes() for i in range(4)]
        (folder / f"data_batch_{k + 1}.bin").write_bytes(b"".join(rows))
    (folder / "test_batch.bin").write_bytes(bytes([9]) + PLANES[0, 0].tobytes())


def python(folder, protocol=2):
    folder.mkdir(parents=True)
    for k in range(5):
        batch = {b"data": PLANES[k].reshape(4, -1), b"labels": LABELS[k].tolist(), b"batch_label": b"x",
                 b"filenames": [b"a.png"] * 4}
        (folder / f"data_batch_{k + 1}").write_bytes(pickle.dumps(batch, protocol))
    (folder / "test_batch").write_bytes(pickle.dumps({"data": PLANES[0, :1].reshape(1, -1), "labels": [9]}, protocol))


@pytest.mark.parametrize("write, sub", [(binary, "cifar-10-batches-bin"), (python, "cifar-10-batches-py")])
@pytest.mark.parametrize("inside", [True, False])
def test_cifar10(tmp_path, write, sub, inside):
    write(tmp_path / sub)
    data = load_dataset("cifar-10", tmp_path if inside else tmp_path / sub, "train")
    np.testing.assert_array_equal(data.images, PLANES.reshape(20, 3, 32, 32).transpose(0, 2, 3, 1))
    assert data.labels.tolist() == LABELS.reshape(-1).tolist() and data.classes[8] == "ship" and data.images.flags.c_contiguous
    test = open_dataset(tmp_path, "test")                                             # recognised by its files
    assert test.labels.tolist() == [9] and test.name == "cifar-10 test"


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_python_batches_of_every_protocol(tmp_path, protocol):
    python(tmp_path / "b", protocol)
    np.testing.assert_array_equal(load_dataset("cifar-10", tmp_path / "b", "train").labels, LABELS.reshape(-1))


def test_cifar100(tmp_path):
    rows = [bytes([3, 40 + i]) + PLANES[0, i].tobytes() for i in range(4)]
    (tmp_path / "train.bin").write_bytes(b"".join(rows))
    (tmp_path / "fine_label_names.txt").write_text("apple\nbear\n")
    data = load_dataset("cifar-100", tmp_path, "train")
    assert data.labels.tolist() == [40, 41, 42, 43] and data.classes == ("apple", "bear")
    np.testing.assert_array_equal(data.images[3, :, :, 1], PLANES[0, 3, 1])
    (tmp_path / "py").mkdir()
    batch = {b"data": PLANES[1].reshape(4, -1), b"fine_labels": [7, 8, 9, 99], b"coarse_labels": [0, 0, 0, 1]}
    (tmp_path / "py" / "test").write_bytes(pickle.dumps(batch, 2))
    assert load_dataset("cifar-100", tmp_path / "py", "test").labels.tolist() == [7, 8, 9, 99]


def test_a_folder_of_several_sets_needs_a_name(tmp_path):
    binary(tmp_path / "cifar-10-batches-bin")
    (tmp_path / "cifar-100-binary").mkdir()
    (tmp_path / "cifar-100-binary" / "train.bin").write_bytes(bytes([3, 77]) + PLANES[0, 0].tobytes())
    with pytest.raises(FormatError,
                       match=f"{tmp_path} holds the data sets cifar-10, cifar-100; say which one: cifar-10={tmp_path}"):
        open_dataset(tmp_path, "train")
    assert open_dataset(f"cifar-100={tmp_path}", "train").labels.tolist() == [77]
    images, labels = load_images(f"cifar-10={tmp_path}", "train")
    assert len(images) == len(labels) == 20 and labels.tolist() == LABELS.reshape(-1).tolist()
    with pytest.raises(FormatError, match="There is no folder /nowhere"):
        open_dataset("cifar-10=/nowhere", "train")
    with pytest.raises(FormatError, match="There is no data set, file or folder 'cifar-11="):
        open_dataset(f"cifar-11={tmp_path}", "train")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_unsound_cifar_is_refused_and_nothing_runs(tmp_path):
    python(tmp_path / "py")
    target = tmp_path / "py" / "test_batch"
    sound = target.read_bytes()
    for content, text in ((pickle.dumps({"data": Evil(tmp_path / "evil")}), "names posix.system|names nt.system"),
                          (sound[:3000], "no sound Python"), (pickle.dumps([1]), "no sound"),
                          (pickle.dumps({"data": 3, "labels": [1]}), "no sound"), (b"", "no sound")):
        target.write_bytes(content)
        with pytest.raises(FormatError, match=text):
            load_dataset("cifar-10", tmp_path / "py")
    assert not (tmp_path / "evil").exists()
    binary(tmp_path / "bin")
    target = tmp_path / "bin" / "test_batch.bin"
    target.write_bytes(target.read_bytes()[:-1])
    with pytest.raises(FormatError, match="no whole number of records of 3073"):
        load_dataset("cifar-10", tmp_path / "bin")
    target.write_bytes(bytes([10]) + PLANES[0, 0].tobytes())
    with pytest.raises(FormatError, match="label 10 is outside 0..9"):
        load_dataset("cifar-10", tmp_path / "bin")
    with pytest.raises(FormatError, match="lacks train"):
        load_dataset("cifar-100", tmp_path / "bin", "train")


def test_a_file_that_is_not_the_published_one_is_named(tmp_path):
    python(tmp_path / "py")
    with pytest.warns(UserWarning, match="test_batch differs from the published file"):
        load_dataset("cifar-10", tmp_path / "py")


def test_svhn(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    images = PLANES[0].transpose(2, 3, 1, 0)
    for compress in (True, False):
        scipy_io.savemat(tmp_path / "test_32x32.mat",
                         {"X": images, "y": np.array([[1], [10], [3], [9]], np.uint8)}, do_compression=compress)
        data = open_dataset(tmp_path)
        assert data.labels.tolist() == [1, 0, 3, 9] and data.name == "svhn test"
        np.testing.assert_array_equal(data.images, PLANES[0].transpose(0, 2, 3, 1))
    whole = (tmp_path / "test_32x32.mat").read_bytes()
    for content in (whole[:2000], b"hello", b""):
        (tmp_path / "test_32x32.mat").write_bytes(content)
        with pytest.raises(FormatError, match="truncated or no MATLAB file|Cannot read"):
            load_dataset("svhn", tmp_path)
    scipy_io.savemat(tmp_path / "test_32x32.mat", {"X": images, "y": np.array([[1], [0], [3], [9]])})
    with pytest.raises(FormatError, match="labels of 1..10"):
        load_dataset("svhn", tmp_path)
    with pytest.raises(FormatError, match="Cannot read"):
        load_dataset("svhn", tmp_path, "train")


def test_an_archive_is_checked_and_unpacked(tmp_path, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in (("toy/a.bin", b"abc"), ("toy/b.txt", b"d")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    data = packed.getvalue()
    monkeypatch.setattr(source_module, "_download", lambda url: data)
    source = Source("toy", {"toy.tar.gz": f"md5:{hashlib.md5(data).hexdigest()}"}, ("https://one.invalid/",), (),
                    lambda f, s: None, lambda f, s: False)
    fetch(source, tmp_path / "cache")
    assert (tmp_path / "cache" / "toy" / "a.bin").read_bytes() == b"abc" \
        and [p.name for p in (tmp_path / "cache").iterdir()] == ["toy"]
    bad = Source("toy", {"toy.tar.gz": f"md5:{'0' * 32}"}, ("https://one.invalid/",), (), lambda f, s: None, lambda f, s: False)
    with pytest.raises(FormatError, match="arrived with the MD5"):
        fetch(bad, tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


REAL = Path(os.environ.get("HWQ_CIFAR", "/nowhere"))


@pytest.mark.skipif(not REAL.is_dir(), reason="set HWQ_CIFAR to a folder with the authors' archives unpacked")
@pytest.mark.parametrize("name, classes", [("cifar-10", 10), ("cifar-100", 100)])
def test_the_real_files(name, classes):
    for split, count in (("train", 50_000), ("test", 10_000)):
        data = load_dataset(name, REAL, split)
        assert data.images.shape == (count, 32, 32, 3) and np.bincount(data.labels).tolist() == [count // classes] * classes
