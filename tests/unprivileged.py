"""A function run as a user without rights: root may write everything, so what others meet needs another user."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

NOBODY = 65534


def as_nobody(function: Callable[[], str]) -> str:
    """What the function answers in a child process of user nobody; of our own user where we are not root.

    A fork, not a new interpreter: the checkout need not be readable for nobody. Modules that the function imports late
    must have been imported before. Raises RuntimeError with the traceback when it fails.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.write(write, function().encode())
            code = 0
        except BaseException:  # noqa: BLE001
            os.write(write, traceback.format_exc().encode())
        finally:
            # Nothing of the parent's is to be run or flushed twice.
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode()
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError(f"as nobody: {text}")
    return text
