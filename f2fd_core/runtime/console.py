"""What a run says: messages, and its progress."""

import sys
import time

LINE_SECONDS = 30


def line(message):
    """A message as a line; what can't be printed in it, such as the end of a line in a
    file's name or a byte there that is no UTF-8, is spelled out."""
    return "f2fd: " + "".join(
        letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message
    )


def say(message):
    """Print a message to the standard error, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(line(message), file=sys.stderr)  # above a progress bar, if there is one
    sys.stderr.flush()


def warn(message):
    """Print a warning."""
    say(f"warning: {message}")


def warn_of_results(results):
    """Warn of results (paths) that stood among the tomograms that they were made from."""
    for path in results:
        warn(f"{path} is left out: by its name, it is a result of another of the tomograms")


def duration(seconds):
    """Seconds in words, such as '40 s', '12 min' or '3.5 h'."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def announce_devices(devices, dtype, purpose):
    """Name the devices; a plain warning when it is the CPU."""
    from f2fd_core.runtime.device import device_name

    say(f"{purpose} on {' and '.join(map(device_name, devices))}, {str(dtype).split('.')[-1]}")
    if devices[0].type == "cpu":
        warn("no GPU is used; on the CPU this takes many times longer")


def progress(total, unit, start=0):
    """Progress bar with the time left; where there is no terminal, a line now and then."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        return _Lines(total, unit, start)
    return tqdm(
        total=total, initial=start, unit=unit, file=sys.stderr, dynamic_ncols=True, mininterval=0.5
    )


class _Lines:
    """Progress for a log file, with what tqdm's bar is asked for: a line at the beginning, at the
    end and about every LINE_SECONDS."""

    def __init__(self, total, unit, start):
        self.total, self.unit, self.start, self.done = total, unit, start, start
        self.began, self.postfix = time.monotonic(), None

    def __enter__(self):
        self._report()
        return self

    def set_postfix(self, refresh, **values):
        self.postfix = ", ".join(f"{name}={value}" for name, value in values.items())

    def update(self):
        self.done += 1
        if time.monotonic() - self.said_at >= LINE_SECONDS:
            self._report()

    def _report(self):
        from tqdm import tqdm

        self.said, self.said_at = self.done, time.monotonic()
        say(
            tqdm.format_meter(
                self.done,
                self.total,
                self.said_at - self.began,
                ncols=0,
                unit=self.unit,
                postfix=self.postfix,
                initial=self.start,
            ).strip()
        )

    def __exit__(self, *exception):
        if self.said < self.done:
            self._report()
