"""`lorif doctor`: what it finds of this machine, of sound stores and of broken ones."""

import json
import os
import platform
import re
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from harness import BINARY, NO, TIMEOUT, attempt, contents, run

TRAIN = ROOT / "Tools/demo/train.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    run("ingest", tmp_path / "s.lorif", TRAIN)
    return tmp_path / "s.lorif"


def findings(*arguments: object, code: int = 0, **environment: str) -> dict[str, dict]:
    done = subprocess.run(
        [BINARY, "doctor", *map(str, arguments), "--json"], capture_output=True, timeout=TIMEOUT, check=False,
        env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == code, done
    report = json.loads(done.stdout)
    levels = [each["level"] for each in report["findings"]]
    assert report["level"] == max(levels, key=["ok", "warn", "fail"].index)
    for each in report["findings"]:
        assert (each["level"] == "ok") == ("advice" not in each), each
    return {each["name"]: each for each in report["findings"]}


def test_the_machine() -> None:
    found = findings()
    assert f"{os.sysconf('SC_NPROCESSORS_ONLN')} processor" in found["processor"]["found"]
    assert "OpenBLAS 0.3" in found["BLAS"]["found"]
    assert re.fullmatch(r"0\.9\.\d+", found["LMDB"]["found"]) and re.fullmatch(
        r"1\.\d+\.\d+", found["Zstandard"]["found"]
    )
    assert found["measured rates"]["level"] == "warn" and "lorif calibrate" in found["measured rates"]["advice"]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    assert f"{total:.1f} GiB" in found["memory"]["found"]
    if platform.machine() == "x86_64" and "avx2" in Path("/proc/cpuinfo").read_text():
        assert found["kernels"]["found"] != "portable"
    assert "opens" not in found


def test_settings_that_matter() -> None:
    assert findings(OPENBLAS_CORETYPE="Haswell")["OPENBLAS_CORETYPE"]["level"] == "warn"
    assert "not used" in findings(OMP_NUM_THREADS="7")["BLAS threads"]["found"]


def test_limits() -> None:
    script = f"ulimit -n 200; ulimit -f 1000000; exec {BINARY} doctor"
    shown = subprocess.run(
        ["/bin/bash", "-c", script], capture_output=True, timeout=TIMEOUT, check=True, text=True
    ).stdout
    assert re.search(r"warn +open files +200\n +→ ", shown), shown
    assert re.search(r"warn +file size +1024000000\n +→ ", shown), shown
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert str(hard) in findings()["open files"]["found"] or hard == resource.RLIM_INFINITY


def test_a_store(store: Path) -> None:
    before = contents(store)
    found = findings(store)
    assert "510 examples" in found["opens"]["found"]
    assert found["curvature"]["level"] == "warn" and "lorif fit" in found["curvature"]["advice"]
    assert found["quick verification"]["level"] == found["durable commits"]["level"] == "ok"
    assert contents(store) == before
    run("fit", store, "--rank", 2)
    assert findings(store)["curvature"]["level"] == "ok"
    run("delete", store, "--where", "source = 'Jargon File'")
    found = findings(store)
    assert "170 that are gone" in found["curvature"]["found"]
    assert "lorif compact" in found["deleted examples"]["advice"]
    run("compact", store)
    assert findings(store)["deleted examples"]["level"] == "ok"


def test_a_broken_store(store: Path, tmp_path: Path) -> None:
    (segment,) = (store / "segments").iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-1])
    assert findings(store, code=NO)["quick verification"]["level"] == "fail"
    assert "lorif repair" in findings(store, code=NO)["quick verification"]["advice"]
    segment.unlink()
    findings(store, code=NO)
    for missing in (tmp_path / "none", tmp_path):
        assert findings(missing, code=NO)["opens"]["level"] == "fail"
    shutil.rmtree(store)
    said = attempt("doctor", store)
    assert said.code == NO
    assert re.search(r"fail +opens", said.stdout), str(said)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no tmpfs here")  # noqa: S108
def test_a_file_system_without_direct_reads() -> None:
    folder = Path(f"/dev/shm/lorif-doctor-{os.getpid()}")  # noqa: S108
    try:
        folder.mkdir()
        run("ingest", folder / "s", TRAIN)
        assert findings(folder / "s")["file system"]["found"] == "tmpfs"
    finally:
        shutil.rmtree(folder)


def test_a_topic_is_in_one_place(store: Path) -> None:
    text = run("doctor", store).stdout
    topics = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert "libraries" in topics and len(topics) == len(set(topics)) > 3
    found = json.loads(run("doctor", store, "--json").stdout)["findings"]
    assert list(dict.fromkeys(each["topic"] for each in found)) == topics
