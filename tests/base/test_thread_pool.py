import subprocess
import sys
import threading
from pathlib import Path

import torch

from lora_mmap import _C

ROWS, COLS = 600, 256


def make_job(seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(ROWS, COLS, generator=generator)
    down, up = torch.randn(4, COLS, generator=generator), torch.randn(ROWS, 4, generator=generator)
    term = (down.data_ptr(), "F32", COLS, 1, up.data_ptr(), "F32", 4, 1, 4, 0, 0, 0.1)
    address = weight.data_ptr()
    return weight, (down, up), (address, address, ROWS, COLS, COLS, 1, COLS, 1, "F32", [term])


def fused(seed, threads):
    weight, _keep, job = make_job(seed)
    assert _C.fuse([job], threads) == []
    return weight


def test_many_python_threads_at_once():
    wanted = [fused(seed, 1) for seed in range(8)]
    wrong = []

    def work(seed):
        for round_ in range(15):
            if not torch.equal(fused(seed, 1 + (seed + round_) % 5), wanted[seed]):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert not worker.is_alive()
    assert wrong == []


def run(code):
    root = Path(__file__).parents[2]
    here = Path(__file__).parent
    prelude = f"import sys; sys.path[:0] = [{str(root)!r}, {str(here)!r}]\n"
    return subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, text=True, timeout=60)


def test_a_forked_child_has_threads_of_its_own():
    done = run(
        "import os, warnings\n"
        "from test_thread_pool import fused, torch\n"
        "warnings.simplefilter('ignore')\n"
        "torch.set_num_threads(1)  # its own pool does not survive a fork\n"
        "wanted = fused(3, 3)\n"
        "child = os.fork()\n"
        "same = torch.equal(fused(3, 3), wanted)\n"
        "threads = len(os.listdir('/proc/self/task'))\n"
        "if child == 0: os._exit(0 if same and threads == 3 else 10 + threads)\n"
        "print(same, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert done.stdout.strip() == "True 0", done.stderr


def test_no_more_threads_than_asked():
    done = run(
        "import os, torch; torch.set_num_threads(1)\n"
        "from test_thread_pool import fused\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "fused(1, 1); before = count()\n"
        "grown = []\n"
        "for threads in (1, 3, 2, 3, 4): fused(1, threads); grown.append(count() - before)\n"
        "print(grown)"
    )
    assert done.stdout.strip() == "[0, 2, 2, 2, 3]", done.stderr


def test_exit_joins_the_workers():
    done = run("from test_thread_pool import fused\nfused(1, 4)\nprint('done')")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "done", "")


def test_exit_while_a_daemon_thread_fuses():
    done = run(
        "import threading, time\n"
        "from test_thread_pool import make_job, _C\n"
        "weight, keep, job = make_job(1)\n"
        "work = lambda: [_C.fuse([job] * 50, 3) for _ in range(100000)]\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.2)\n"
        "print('done')"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr
