"""What a training leaves in its folder and says: log, checkpoints, pictures and the model."""

import os
import time

from f2fd_core.config import tta_flips
from f2fd_core.data import formats
from f2fd_core.data.source import slabs
from f2fd_core.network import checkpoint
from f2fd_core.prediction.predictor import Predictor, preview
from f2fd_core.runtime import console, figures, train_log
from f2fd_core.runtime.run_folder import MASKS, model_in
from f2fd_core.training import eta
from f2fd_core.training.trainer import chosen_model

PREVIEW_PREDICTIONS = 2
# Seconds without pictures for each that they take: on a fast GPU, drawing them at every checkpoint
# would take as long as the steps.
PAUSE_OF_DRAWING = 9.0


class Writer:
    """Writes of a :class:`~f2fd_core.training.state.Training` from its present step on.

    A context manager: the log is open, and the progress shown, while it lasts.
    """

    def __init__(self, training):
        self.training, self.folder = training, training.config.output
        self.log = train_log.TrainLog(self._path("log.csv"), bool(training.truths), training.step)
        self.bar = console.progress(training.steps, "step", training.step)
        self.first, self.entered = training.step, time.monotonic()
        self.draw_from, self.timed = 0.0, []
        self.noise = None  # that spectrum.png shows

    def __enter__(self):
        self._report_the_start()
        self.draw_spectrum()
        if self.training.step and not os.path.exists(self.preview_path()):
            self.draw()  # the run from which this one goes on was ended before that
        self.log.__enter__()
        self.bar.__enter__()
        return self

    def __exit__(self, *exception):
        self.bar.__exit__(*exception)
        self.log.__exit__(*exception)

    def _path(self, *names):
        return os.path.join(self.folder, *names)

    def _report_the_start(self):
        training = self.training
        if training.config.finds_specimen():
            self._report_specimens()
        if training.step == 0:
            console.say(f"starting from {training.config.origin()}")
        if training.matched() and training.validated:
            scales = sorted(
                {f"{perturbation.scale:.2f}" for perturbation in training.perturbations}
            )
            console.say(f"noise scale: {' to '.join(sorted({scales[0], scales[-1]}))}")
            for perturbation in training.perturbations:
                self._report_the_noise(perturbation.volume.source, perturbation.noise)

    @staticmethod
    def _report_the_noise(source, noise):
        console.say(f"{source.name}: {noise.describe()}")
        if noise.hardly_any():
            console.warn(
                f"{source.path} has hardly any noise that could be told from signal, so hardly any "
                "will be removed; expected a tomogram as it was reconstructed: not denoised or "
                "strongly filtered since"
            )

    def _report_specimens(self):
        """Say where the specimens were found, and write them to masks/."""
        for number, (volume, slab) in enumerate(zip(self.training.volumes, self.training.masks), 1):
            name = volume.source.name
            if slab is None:
                console.say(f"{name}: no slab stands out: the specimen is taken to be everywhere")
                continue
            console.say(f"{name}: {slab.describe()}")
            os.makedirs(self._path(MASKS), exist_ok=True)
            path = self._path(MASKS, f"{number}_{name}")  # names may be the same in several folders
            with formats.new_volume(
                path + ".mrc", slab.shape, (volume.voxel_size,) * 3, done="specimen"
            ) as values:
                for part in slabs(slab.shape):
                    values[part] = slab[part, :, :]
            figures.draw_outline(
                volume.central_sections(), slab.central_sections(), path + ".png", name
            )

    def after_step(self, row, seconds):
        """Log a step's ``row``, which took so many seconds; checkpoint and pictures if due."""
        training, now = self.training, time.monotonic()
        done = training.step - self.first
        if done > eta.WARMING_STEPS:
            self.timed.append(seconds)
        if len(self.timed) == eta.MEASURED_STEPS and done == eta.WARMING_STEPS + eta.MEASURED_STEPS:
            console.say(eta.of_training(training, sum(self.timed) / eta.MEASURED_STEPS))
        self.log.write(
            step=training.step - 1,
            seconds=self.log.seconds + now - self.entered,
            voxels_per_second=row.pop("voxels") / seconds,
            seconds_left=(training.most_steps() - training.step) * (now - self.entered) / done,
            **row,
        )
        self.bar.set_postfix(loss=f"{row['loss']:.4g}", refresh=False)
        self.bar.update()
        if training.checkpoint_due():
            self.save_checkpoint()
            began = time.monotonic()
            if began >= self.draw_from or training.finished():
                self.draw()
                drawn = time.monotonic()
                self.draw_from = drawn + PAUSE_OF_DRAWING * (drawn - began)

    def save_checkpoint(self):
        """Write a checkpoint of the present step."""
        training = self.training
        checkpoint.save(
            checkpoint.path_of(training.checkpoints, training.step),
            training.model().state_dict(),
            training.config,
            training.step,
            training.voxel_size,
            **training.state_dict(),
        )

    def save_model(self):
        """Write model.pt, see :func:`~f2fd_core.training.trainer.chosen_model`."""
        training = self.training
        weights, step = chosen_model(training)
        path = model_in(self.folder)
        noise = (
            [perturbation.noise.by_shell() for perturbation in training.perturbations]
            if training.matched()
            else []
        )
        checkpoint.save(path, weights, training.config, step, training.voxel_size, noise=noise)
        console.say(f"model of step {step} written to {path} after {training.step} steps")
        if step == 0 < training.step:
            console.warn(
                "the training did not make the network better than the weights that it "
                "began with, as far as the tomograms show: these are the model"
            )
        if training.steps is None and not (
            training.stopped
            or training.schedule.stops()
            or (training.last or training.best).waited(training.step)
        ):
            console.say(
                f"--steps auto ends after {training.step} steps, "
                f"{training.order.epochs_before(training.step)} epochs of the "
                f"{len(training.order.patches)} patches, though the loss may not be flat "
                "yet; --resume with a larger number of --steps goes on"
            )

    def preview_path(self):
        """The picture that belongs to a checkpoint after the present step."""
        return self._path("previews", f"step_{self.training.step:08d}.png")

    def draw_spectrum(self):
        """spectrum.png: what the noise spectrum of the first tomogram is taken to be; drawn once,
        and when that changes."""
        training = self.training
        if not training.matched() or training.perturbations[0].noise is self.noise:
            return
        self.noise = training.perturbations[0].noise
        figures.draw_spectrum(
            self.noise.by_shell(), training.voxel_size, self._path("spectrum.png")
        )

    def draw(self):
        """Renew all pictures; slices.png is kept for every step."""
        training = self.training
        predictor = Predictor(
            training.model(),
            training.device,
            training.dtype,
            PREVIEW_PREDICTIONS,
            PREVIEW_PREDICTIONS,
            flips=tta_flips(training.config),
        )
        perturbation = training.perturbations[0]
        perturbation.at_step(training.step)  # a resumed run draws before its first step
        before, after = preview(
            predictor,
            perturbation.for_prediction(PREVIEW_PREDICTIONS),
            training.volumes[0],
            training.config,
        )
        training.network.train()
        title = f"{training.volumes[0].source.name}, step {training.step}"
        self.draw_spectrum()
        figures.draw_loss(self.log.path, self._path("loss.png"))
        figures.draw_histogram(before, after, self._path("histogram.png"))
        newest = self._path("slices.png")
        figures.draw_slices(before, after, newest, title)
        figures.copy_picture(newest, self.preview_path())
