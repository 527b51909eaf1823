"""``armed`` for a build without fault points: replaces the functions that begin a stage."""

import sys
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from lora_mmap import staging, transaction

_compose = sys.modules["lora_mmap.compose"]
_FUNCTIONS = {
    "read": [(staging.HostStream, "load")],
    "save": [(transaction, "save")],
    "lower": [(transaction, "lower")],
    "fuse": [(staging.HostStream, "fuse")],
    "keep": [(transaction.Transaction, "kept")],
    "restore": [(transaction, "put_back"), (_compose, "put_back")],
    "commit": [(transaction.Transaction, "restore_left")],
}
FAULT_POINTS = tuple(_FUNCTIONS)


@contextmanager
def armed(name, countdown, error):
    left = [countdown]

    def failing(original):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise error
            return original(*args, **kwargs)

        return wrapped

    with ExitStack() as stack:
        for owner, function in _FUNCTIONS[name]:
            stack.enter_context(patch.object(owner, function, failing(getattr(owner, function))))
        yield
