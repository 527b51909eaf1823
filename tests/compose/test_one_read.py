"""One read, one parse, one classification: from the report, from the kernel's own account and from strace."""

import json
import logging
import os
import re
import shutil
import struct
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write
from torch import nn

import lora_mmap
from lora_mmap import _C, factor_reading, staging

COUNTS = (1, 2, 5)


def linears():
    return nn.Sequential(*(nn.Linear(96, 80) for _ in range(6)))


def adapters(folder, count, extra=None):
    model, paths = linears(), []
    for index in range(count):
        tensors = keyed(adapter_for(model, map(str, range(6)), 3, seed=index), alpha=2)
        paths.append(write(folder / f"{count}_{index}.safetensors", tensors | (extra or {})))
    return paths


def header_nbytes(path):
    return 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]


def characters_read():
    """What this process has read through system calls so far, by the kernel's count, without this very look."""
    text = Path("/proc/self/io").read_text()
    return int(re.search(r"rchar: (\d+)", text).group(1)), len(text)


def read_by_kernel(action):
    """The result of ``action`` and the bytes that it reads each time. The kernel counts the whole process, and a thread
    of the test runner reads when it likes: what two runs agree on is the action's own."""
    seen = set()
    for _ in range(6):
        before, look = characters_read()
        result = action()
        after, _ = characters_read()
        nbytes = after - before - look
        if nbytes in seen:
            return result, nbytes
        seen.add(nbytes)
    pytest.fail(f"it read another number of bytes each time: {sorted(seen)}")


@pytest.mark.parametrize("count", COUNTS)
def test_report_and_kernel_agree(tmp_path, count):
    paths = adapters(tmp_path, count)
    entries = [(path, 0.5) for path in paths]
    lora_mmap.compose(linears(), entries)  # imports what is imported late
    model = linears()
    report, rchar = read_by_kernel(lambda: lora_mmap.compose(model, entries))
    whole = sum(path.stat().st_size for path in paths)
    assert report.bytes_read == rchar == whole  # every tensor is needed, so each file exactly once
    assert report.files_opened == report.headers_parsed == count
    assert report.keys_classified == count * 18


def test_native_counters_agree(tmp_path):
    paths = adapters(tmp_path, 2)
    before = _C.counters()
    report = lora_mmap.compose(linears(), [(path, 1.0) for path in paths])
    after = dict(_C.counters())
    grown = {name: after[name] - before[name] for name in after}
    assert grown["files_opened"] == report.files_opened == 2
    assert grown["bytes_read"] == report.bytes_read
    assert grown["headers_parsed"] == report.headers_parsed == 2
    assert grown["keys_classified"] == report.keys_classified == 36


def test_what_no_module_needs_is_not_read(tmp_path):
    """A large tensor between needed ones is read around, a small one may be read through."""
    paths = adapters(
        tmp_path, 1, {"99.lora_A.weight": torch.zeros(64, 4096), "99.lora_B.weight": torch.zeros(4096, 64)}
    )
    (path,) = paths
    report, rchar = read_by_kernel(lambda: lora_mmap.compose(linears(), [(path, 1.0)]))
    needed = header_nbytes(path) + 6 * (3 * 96 + 80 * 3 + 1) * 4
    assert report.bytes_read == rchar
    assert needed <= report.bytes_read <= needed + factor_reading.MAX_GAP_NBYTES


def test_check_reads_headers_and_alphas_only(tmp_path):
    (path,) = adapters(tmp_path, 1)
    model = linears()
    lora_mmap.check(model, path)
    report, rchar = read_by_kernel(lambda: lora_mmap.check(model, path))
    assert report.bytes_read == rchar == header_nbytes(path) + 6 * 4


def test_opening_reads_the_header_only(tmp_path):
    (path,) = adapters(tmp_path, 1)
    lora_mmap.open_adapter(path).close()
    adapter, rchar = read_by_kernel(lambda: lora_mmap.open_adapter(path))
    assert rchar == header_nbytes(path)
    adapter.close()


def test_an_open_adapter_is_parsed_and_classified_no_more(tmp_path):
    (path,) = adapters(tmp_path, 1)
    with lora_mmap.open_adapter(path) as adapter:
        first = lora_mmap.compose(linears(), [(adapter, 1.0)])
        second, rchar = read_by_kernel(lambda: lora_mmap.compose(linears(), [(adapter, 1.0)]))
    factors = 6 * (3 * 96 + 80 * 3) * 4
    assert first.bytes_read == factors + 6 * 4
    assert second.bytes_read == rchar == factors  # the alphas are known by now
    for report in (first, second):
        assert report.files_opened == report.headers_parsed == report.keys_classified == 0


def test_debug_logging_costs_no_second_read(tmp_path, caplog, monkeypatch):
    (path,) = adapters(tmp_path, 1)
    quiet = lora_mmap.compose(linears(), [(path, 1.0)])
    monkeypatch.setenv("nunchaku_log", "1")
    with caplog.at_level(logging.DEBUG, "lora_mmap"):
        lora_mmap.compose(linears(), [(path, 1.0)])
        loud, rchar = read_by_kernel(lambda: lora_mmap.compose(linears(), [(path, 1.0)]))
    assert loud.bytes_read == quiet.bytes_read == rchar
    assert loud.keys_classified == quiet.keys_classified
    assert caplog.records


def test_printing_and_exporting_the_report_reads_nothing(tmp_path):
    (path,) = adapters(tmp_path, 1)
    report = lora_mmap.compose(linears(), [(path, 1.0)])
    str(report)
    _, rchar = read_by_kernel(lambda: str(report))
    assert rchar == 0
    before = lora_mmap._C.counters()
    report.to_dict()  # looks into /proc/self/maps, which the kernel counts too
    assert lora_mmap._C.counters() == before


@pytest.mark.parametrize("retain", ["memory", "file"])
def test_a_strength_change_opens_parses_and_classifies_nothing(tmp_path, retain):
    """Its factors are in memory, or read again from the file that is still open; the name on disk is not even looked
    at."""
    (path,) = adapters(tmp_path, 1)
    model = linears()
    lora_mmap.compose(model, [(path, 1.0)], retain=retain)
    path.rename(tmp_path / "moved.safetensors")
    report, rchar = read_by_kernel(lambda: lora_mmap.set_lora_strength_v2(model, 0.5))
    assert report.files_opened == report.headers_parsed == report.keys_classified == 0
    nbytes = 6 * (3 * 96 + 80 * 3) * 4
    assert (report.bytes_read, rchar) == ((0, 0) if retain == "memory" else (nbytes, nbytes))
    assert (report.memory["retained"] >= nbytes) is (retain == "memory")
    assert (report.memory["transient"] >= nbytes) is (retain == "file")


def test_several_windows_and_threads_read_every_byte_once(tmp_path):
    """Enough for several windows, each cut into pieces that threads read side by side."""
    model = nn.Sequential(*(nn.Linear(2048, 512, bias=False) for _ in range(4)))
    tensors = keyed(adapter_for(model, map(str, range(4)), 512), alpha=1)
    path = write(tmp_path / "large.safetensors", tensors)
    assert path.stat().st_size > 2 * staging.WINDOW_NBYTES
    report, rchar = read_by_kernel(lambda: lora_mmap.compose(model, [(path, 1e-3)]))
    assert report.bytes_read == rchar == path.stat().st_size
    assert report.memory["staging"] == 0
    assert report.memory["retained"] <= path.stat().st_size + 4 * 4096
    report = lora_mmap.compose(model, [(path, 1e-3)], restore="backup")
    assert 0 < report.memory["staging"] <= 2 * staging.WINDOW_NBYTES
    assert report.memory["retained"] == 0


def traced(folder, tmp_path):
    """{path: {"open": times, "read": [(offset, nbytes)], "mmap": times}} of one run, and what the run printed."""
    script = Path(__file__).with_name("read_and_compose.py")
    log = tmp_path / "strace"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "nunchaku_log": "1"}
    calls = "open,openat,openat2,read,pread64,readv,preadv,preadv2,mmap,lseek,sendfile,copy_file_range"
    run = subprocess.run(
        [
            "strace",
            "-f",
            "-yy",
            "-qq",
            "--seccomp-bpf",
            "-e",
            f"trace={calls}",
            "-o",
            str(log),
            sys.executable,
            str(script),
            str(folder),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if run.returncode and "ptrace" in run.stderr.lower():
        pytest.skip(f"strace may not trace here: {run.stderr.strip().splitlines()[-1]}")
    assert run.returncode == 0, run.stderr[-2000:]
    return parse(log.read_text(), folder), json.loads(run.stdout)


def parse(text, folder):
    seen = defaultdict(lambda: {"open": 0, "read": [], "other": []})
    for line in joined(text.splitlines()):
        match = re.search(rf"({re.escape(str(folder))}/[\w.]+)", line)
        if match is None:
            continue
        use = seen[match.group(1)]
        if re.search(r"\bopen(at2?)?\(", line):
            use["open"] += 1
        elif read := re.search(r"pread64\(.*, (\d+), (\d+)\)\s+= (\d+)$", line):
            use["read"].append((int(read.group(2)), int(read.group(3))))
        else:
            use["other"].append(line)
    return seen


def joined(lines):
    """Calls that strace printed in two halves, in one line."""
    begun = {}
    for line in lines:
        pid, _, rest = line.partition(" ")
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix("<unfinished ...>")
        elif (resumed := re.search(r"<\.\.\. \w+ resumed>(.*)", rest)) and pid in begun:
            yield begun.pop(pid) + resumed.group(1)
        else:
            yield rest


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    folder = tmp_path_factory.mktemp("adapters")
    for count in COUNTS:
        adapters(folder, count)
    return folder, *traced(folder, tmp_path_factory.mktemp("trace"))


@pytest.mark.parametrize("count", COUNTS)
def test_strace_sees_one_open_and_every_byte_once(trace, count):
    folder, seen, reports = trace
    total = 0
    for index in range(count):
        path = folder / f"{count}_{index}.safetensors"
        use = seen[str(path)]
        assert use["open"] == 1
        assert use["other"] == [], "read or mapped in some other way"
        position = 0
        for offset, nbytes in sorted(use["read"]):
            assert offset >= position, f"{path.name}: bytes {offset} to {position} are read twice"
            position = offset + nbytes
        total += sum(nbytes for _, nbytes in use["read"])
        assert total <= sum(p.stat().st_size for p in folder.glob(f"{count}_*"))
    told = reports[str(count)]
    assert told["bytes_read"] == total
    assert told["files_opened"] == told["headers_parsed"] == count
    assert told["keys_classified"] == 18 * count
