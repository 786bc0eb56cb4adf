"""``f2fd run``: a few typical tomograms are chosen, a model trained, all denoised and judged."""

from f2fd_core.config import RunConfig
from f2fd_core.pipeline import steps
from f2fd_core.pipeline.watch import watch
from f2fd_core.runtime import console, distributed, files
from f2fd_core.runtime.device import choose_devices


def run(config: RunConfig) -> str:
    """Train on a few typical tomograms, denoise all, and show how far to believe the results.

    Into the output folder go the model (training/model.pt), the results (denoised/), which
    tomograms were chosen and why (chosen.json) and a page with a picture of each tomogram
    (overview.html). A run that was ended goes on with ``resume``. Tasks that torchrun or srun have
    started train together and share the tomograms. With ``watch``, see
    :func:`~f2fd_core.pipeline.watch.watch`.

    Parameters
    ----------
    config : RunConfig

    Returns
    -------
    str
        The path of overview.html.

    Raises
    ------
    UserError
        For bad input, naming the option or file.
    """
    if config.watch:
        return watch(config)
    left_out = files.results_among(config.names(), config.result_file)
    console.warn_of_results(left_out)
    config = config.without(left_out)
    devices = choose_devices(config.device)
    with distributed.joined(devices[0].type == "cuda") as group:
        if group.size > 1:
            group.device(devices, config.device)
        chosen = group.agreed(lambda: steps.begin(config))
        # One task writes the model; the others wait.
        model = group.broadcast(steps.train_on(config, chosen))
    steps.denoise_all(config, model)
    steps.show(config, chosen, model)
    return steps.page_of(config)
