"""A real Ctrl-C at random times, in a process that does nothing but compose, switch, change strengths and reset."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from undo_tiers import one_of_each_tier

TRIALS = 200
PATIENCE = 240  # seconds for all trials of a tier; they take some 5
LATEST = 0.03  # seconds after the process said that it is ready; several calls
SCRIPT = Path(__file__).with_name("interrupted_calls.py")
_TIERS = one_of_each_tier.args[1]


def trials_of(tier):
    """So that all tiers have :data:`TRIALS` together."""
    return -(-TRIALS // len(_TIERS))


@one_of_each_tier
def test_interrupted_at_random_times(tier, tmp_path, record_property):
    wanted, seen, source = trials_of(tier), Counter(), random.Random(0)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-X", "faulthandler", str(SCRIPT), tier.name, str(tmp_path), str(wanted)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        hung = threading.Timer(PATIENCE, process.send_signal, [signal.SIGABRT])  # prints where
        hung.start()
        try:
            for _ in range(wanted):
                assert process.stdout.readline() == "ready\n"
                time.sleep(source.uniform(0, LATEST))
                process.send_signal(signal.SIGINT)
                seen[process.stdout.readline().strip()] += 1
            assert process.wait(30) == 0
        finally:
            hung.cancel()
            process.kill()
    record_property("interrupted", dict(seen))
    print(f"{tier.name}: {dict(seen)}")
    wrong = [line for line in seen if line not in ("before", "after", "none")]
    assert wrong == []
    assert seen["none"] <= wanted // 10, "interrupts that nobody saw"
    assert seen["before"] > 0
