"""Try the denoising on a part of one tomogram before all are denoised."""

import os
import shutil
import tempfile
import threading
import time
import tkinter as tk
from tkinter import ttk

import numpy as np
from pyworkflow.gui.dialog import RESULT_CLOSE, RESULT_YES, Dialog
from pyworkflow.wizard import Wizard
from tomo.objects import Tomogram

from f2fd_core.config import UserError
from f2fd_core.runtime.files import DENOISED_ENDING
from f2fd_scipion import engine
from f2fd_scipion.form import in_form_words
from f2fd_scipion.protocols import ProtF2FdDenoise
from f2fd_scipion.protocols.protocol_base import NO_TOMOGRAM, tomograms_of, volume_file
from f2fd_scipion.viewers.comparison import Comparison, voxels

SIDE = 256
DEPTH = 32
PREDICTIONS = (0, 1, 2, 4, 8, 16, 32)
POLL = 200  # milliseconds


def part_around(shape, section):
    """First voxel and size (Z, Y, X) of the part that is denoised around a section across Z."""
    size = [min(side, most) for side, most in zip(shape, (DEPTH, SIDE, SIDE))]
    middles = (section, shape[1] // 2, shape[2] // 2)
    first = [
        min(max(middle - length // 2, 0), side - length)
        for middle, length, side in zip(middles, size, shape)
    ]
    return first, size


def denoised_part(protocol, tsId, section, predictions):
    """A part of a tomogram before and after denoising with a form's settings, and its first voxel,
    all (Z, Y, X).

    ``section``: across Z, around which it lies. Raises UserError or EngineError.
    """
    tomogram = protocol.inTomos.get().getItem(Tomogram.TS_ID_FIELD, tsId)
    before = voxels(volume_file(tomogram))
    first, size = part_around(before.shape, section)
    folder = tempfile.mkdtemp(prefix="f2fd_preview_")
    try:
        config = protocol._configure(
            dict(
                protocol._supply(tomogram),
                output=folder,
                region=first + size,
                std=False,
                fill_wedge=False,
                predictions=predictions,
            )
        )
        path = os.path.join(folder, "denoise.json")
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(config.to_json())
        engine.call(
            ["denoise", "--config", path], gpus=protocol.getGpuList() if protocol.usesGpu() else ()
        )
        (result,) = [name for name in os.listdir(folder) if name.endswith(DENOISED_ENDING)]
        after = np.array(voxels(os.path.join(folder, result)))
    finally:
        shutil.rmtree(folder)
    box = tuple(slice(at, at + side) for at, side in zip(first, size))
    return np.array(before[box], dtype=np.float32), after, first


class PreviewDialog(Dialog):
    """Asks for tomogram, section and number of predictions, and shows what they give."""

    def __init__(self, form):
        self.denoising, self.form = form.protocol, form
        self.tomograms = {
            tomogram.getTsId(): tomogram for tomogram in tomograms_of(self.denoising.inTomos.get())
        }
        self.working = None
        super().__init__(
            form.root,
            "Preview of denoising",
            lockGui=False,
            buttons=[("Use this number", RESULT_YES), ("Close", RESULT_CLOSE)],
            default="Close",
        )

    def body(self, master):
        for row, words in enumerate(("Tomogram", "Section", "Predictions (0: automatic)")):
            tk.Label(master, text=words).grid(row=row, column=0, sticky="e", padx=5, pady=5)
        self.tsId = ttk.Combobox(master, values=sorted(self.tomograms), state="readonly", width=40)
        self.tsId.current(0)
        self.tsId.bind("<<ComboboxSelected>>", lambda event: self.chosen())
        self.section = tk.Scale(master, orient=tk.HORIZONTAL, length=300)
        self.predictions = ttk.Combobox(master, values=PREDICTIONS, width=6)
        self.predictions.set(self.denoising.predictions.get())
        for row, widget in enumerate((self.tsId, self.section, self.predictions)):
            widget.grid(row=row, column=1, sticky="w", padx=5, pady=5)
        self.button = tk.Button(master, text="Denoise this part", command=self.start)
        self.button.grid(row=3, column=1, sticky="w", padx=5, pady=5)
        self.message = tk.Label(
            master,
            wraplength=420,
            justify=tk.LEFT,
            text=f"A part of {SIDE} x {SIDE} x {DEPTH} voxels around the section is denoised with "
            "the form's model and parameters.",
        )
        self.message.grid(row=4, column=0, columnspan=2, sticky="w", padx=5, pady=5)
        self.chosen()

    def chosen(self):
        """Fit the section's scale to the chosen tomogram."""
        depth = self.tomograms[self.tsId.get()].getDim()[2]
        self.section.configure(from_=0, to=depth - 1)
        self.section.set(depth // 2)

    def number(self):
        """The number of predictions; raises UserError if it is none."""
        text = self.predictions.get().strip()
        if not text.isdecimal():
            raise UserError(f"Predictions: '{text}' is not a whole number of at least 0")
        return int(text)

    def start(self):
        """Denoise in the background."""
        try:
            arguments = (self.denoising, self.tsId.get(), int(self.section.get()), self.number())
        except UserError as error:
            self.message.configure(text=str(error))
            return
        self.button.configure(state=tk.DISABLED)
        self.message.configure(text="Denoising ...")
        self.outcome, self.began, self.asked = None, time.monotonic(), arguments[2]
        self.working = threading.Thread(target=self._work, args=arguments, daemon=True)
        self.working.start()
        self.after(POLL, self._look)

    def _work(self, *arguments):
        try:
            self.outcome = denoised_part(*arguments)
        except (UserError, engine.EngineError) as error:
            self.outcome = in_form_words(error, ProtF2FdDenoise.CONFIG)
        except OSError as error:
            self.outcome = str(error)

    def _look(self):
        if not self.winfo_exists():
            return  # closed meanwhile
        if self.working.is_alive():
            self.after(POLL, self._look)
            return
        self.button.configure(state=tk.NORMAL)
        if isinstance(self.outcome, tuple):
            seconds = time.monotonic() - self.began
            self.message.configure(
                text=f"This took {seconds:.0f} seconds, most of them to start up."
            )
            before, after, first = self.outcome
            self.shown = Comparison(before, after, title=f"{self.tsId.get()}, preview", first=first)
            self.shown.place.set_val(self.asked)
            self.shown.show()
        else:
            self.message.configure(text=self.outcome or "The preview failed; see the terminal.")

    def apply(self):
        """Take the number of predictions over into the form."""
        self.form.setVar("predictions", self.number())

    def validate(self):
        try:
            self.number()
            return True
        except UserError as error:
            self.message.configure(text=str(error))
            return False


class F2FdPreviewWizard(Wizard):
    """A preview of denoising, to choose the number of predictions by."""

    _targets = [(ProtF2FdDenoise, ["predictions"])]

    def show(self, form, *params):
        protocol = form.protocol
        errors = protocol.validate() or ([] if protocol.inTomos.get().getSize() else [NO_TOMOGRAM])
        if errors:
            form.showError("\n".join(errors))
            return
        PreviewDialog(form)
