"""A line on stderr that counts while something long goes on, and says how long it usually takes."""

from __future__ import annotations

import sys
import threading
import time


class Ticker:
    """Counts seconds beside what is usual; silent when ``quiet``. A terminal's line is ended when the work ends."""

    def __init__(self, part: str, doing: str, usual: str, quiet: bool) -> None:
        self._text, self._usual, self._quiet = f"{part}: {doing}", usual, quiet
        self._stop, self._began = threading.Event(), 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Ticker:
        self._began = time.monotonic()
        # On a terminal every second; in a log every half minute, so that nobody thinks it hangs.
        self._tty = sys.stderr.isatty()
        if not self._quiet:
            sys.stderr.write(f"{self._text}, usually {self._usual}{'' if self._tty else chr(10)}")
            sys.stderr.flush()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if not self._quiet:
            # Joined, so that no late tick lands on the next part's line.
            self._thread.join()
            if self._tty:
                sys.stderr.write("\n")
                sys.stderr.flush()

    def _run(self) -> None:
        while not self._stop.wait(1 if self._tty else 30):
            passed = f"{self._text}, {time.monotonic() - self._began:.0f} s of usually {self._usual}"
            # The line on a terminal is written over and its rest erased.
            sys.stderr.write(f"\r{passed}\033[K" if self._tty else f"{passed}\n")
            sys.stderr.flush()
