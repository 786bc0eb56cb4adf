"""log.csv: what is written of each step of a training, and what is read from it."""

import csv
import os

import numpy as np

from f2fd_core.config import UserError
from f2fd_core.runtime.files import cannot_write, replaced

TRUTH_SCORES = ("ssim", "psnr", "input_ssim", "input_psnr")
FILLED_COLUMNS = ("step", "seconds", "loss", "learning_rate", "voxels_per_second")
COLUMNS = (*FILLED_COLUMNS, "validation_loss", "explained_power", "signal_power", "seconds_left")


class TrainLog:
    """log.csv: one row a training step, written at once; keeps the rows before a resumed step.

    A context manager.
    """

    def __init__(self, path, scores, step):
        """``scores``: whether there is a ground truth; ``step``: the first one to be logged."""
        self.path = path
        self._columns = COLUMNS + (TRUTH_SCORES if scores else ())
        kept = [row for row in read_log(path) if int(row["step"]) < step] if step else []
        self.seconds = float(kept[-1]["seconds"]) if kept else 0.0
        with replaced(path) as partial, open(partial, "w", newline="") as stream:
            writer = csv.DictWriter(stream, self._columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    def __enter__(self):
        self._stream = open(self.path, "a", newline="", buffering=1)
        self._writer = csv.DictWriter(self._stream, self._columns)
        return self

    def write(self, **row):
        """Add a row. Raises OSError, one sentence, where the system refuses."""
        try:
            self._writer.writerow(
                {
                    name: f"{value:.6g}" if isinstance(value, float) else value
                    for name, value in row.items()
                }
            )
        except OSError as error:
            raise cannot_write(self.path, error)

    def __exit__(self, kind, *exception):
        try:
            self._stream.close()
        except OSError as error:
            if kind is None:  # otherwise that error has been reported
                raise cannot_write(self.path, error)


def read_log(path):
    """Rows of a log.csv as dictionaries of text; none if there is no file.

    Raises UserError, naming the line, for what is not the log of a training.
    """
    if not os.path.exists(path):
        return []
    with open(path, encoding="ascii", errors="replace") as stream:
        # Only whole lines: a full disk or a killed run may have left a part of one.
        lines = [line.rstrip("\n").split(",") for line in stream if line.endswith("\n")]
    rows = []  # the first is the heading's
    try:
        for cells in lines:
            row = dict(zip(lines[0], cells))
            if len(cells) != len(lines[0]) or not {*COLUMNS, *TRUTH_SCORES}.issuperset(row):
                raise ValueError("other columns")
            if rows:
                int(row["step"])
                for name, text in row.items():
                    float(text if text or name in FILLED_COLUMNS else "nan")
            rows.append(row)
    except (KeyError, ValueError):
        raise UserError(
            f"{path} is damaged in line {len(rows) + 1}; expected the log of a "
            "training: remove it to go on without"
        )
    return rows[1:]


def column(rows, name):
    """A column of :func:`read_log`'s ``rows`` as an array, NaN where it is empty."""
    return np.array([float(row.get(name) or "nan") for row in rows])  # older logs have fewer


def signal_explained(rows):
    """The share of the signal's power that the network explained at each of the ``rows`` of a log,
    on parts kept from the training; NaN where that was not looked at, or is not known.

    It is 1 - error / signal: 0 for predicting nothing, 1 for the noise-free tomogram. The signal's
    power is as the best network so far shows it (see ``Validation`` in training/validation.py).
    """
    explained, signal = column(rows, "explained_power"), column(rows, "signal_power")
    if not np.isfinite(explained).any():
        return explained
    best = signal[np.nanargmax(explained)]
    return explained / (best if best > 0 else np.nan)
