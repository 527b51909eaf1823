"""Scripts in a process of their own: what would kill or change this one, and what only another user sees."""

import os
import subprocess
import sys

# Root may read everything, so root steps down. The folder is entered before: the way to it may be root's alone.
STEP_DOWN = """
import os, sys
os.chdir(sys.argv[1])
if os.getuid() == 0:
    os.setgroups([])
    os.setuid(65534)
"""


def python_command(script, *arguments, **variables):
    """What subprocess needs to run a script with this process's import path and more ``variables``."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | variables
    return {"args": [sys.executable, "-c", script, *map(str, arguments)], "env": environment, "text": True}


def run_python(script, *arguments, timeout=120, **variables):
    """The finished process. A hang is a failure."""
    return subprocess.run(**python_command(script, *arguments, **variables), capture_output=True, timeout=timeout)


def run_as_nobody(folder, imports, script):
    """Runs a script in ``folder`` as somebody without root's rights, who cannot import what it needs any more."""
    folder.chmod(0o755)
    return run_python(f"{imports}\n{STEP_DOWN}\n{script}", folder)
