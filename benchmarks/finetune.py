"""How many steps a trained model saves on another tomogram, in one run.

A model is trained on one simulated tomogram and goes on (--initial-model) on a second one, of other
seed; beside it, trainings on the second from random weights (--start random) and from those that
come with F2Fd (--start pretrained). Prints the correlation of the second, denoised, with its
noise-free reconstruction after each number of steps.

    python benchmarks/finetune.py --steps 50 100 200
"""

import argparse
import tempfile

from ablation import read

from f2fd_core import DenoiseConfig, SimulateConfig, TrainConfig, denoise, simulate, train
from f2fd_core.evaluation.metrics import correlation
from f2fd_core.network.checkpoint import PRETRAINED


def simulated(folder, options, seed):
    return simulate(
        SimulateConfig(
            output=f"{folder}/seed{seed}", seed=seed, shape=tuple(options.shape), snr=options.snr
        )
    )


def trained(paths, output, steps, **start):
    """Path of a model trained on a simulated tomogram."""
    return train(
        TrainConfig(
            tomograms=(paths["tomogram"],),
            output=output,
            steps=steps,
            checkpoint_every=steps,
            **start,
        )
    )


def quality(model, paths, output):
    """Correlation of the tomogram, denoised by the model, with its noise-free reconstruction."""
    (result,) = denoise(DenoiseConfig(model=model, tomograms=(paths["tomogram"],), output=output))
    return correlation(read(result), read(paths["clean"]))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--first", type=int, default=300, help="steps on the first tomogram")
    parser.add_argument("--steps", type=int, nargs="+", default=(50, 100, 200))
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        first, second = (simulated(folder, options, seed) for seed in (1, 2))
        model = trained(first, folder + "/first", options.first)
        rows = [
            (
                0,
                correlation(read(second["tomogram"]), read(second["clean"])),
                *(
                    quality(start, second, f"{folder}/unchanged{number}")
                    for number, start in enumerate((PRETRAINED, model))
                ),
            )
        ]
        for steps in options.steps:
            row = [steps]
            for name, start in (
                ("random", {"start": "random"}),
                ("shapes", {"start": "shapes"}),
                ("model", {"initial_model": model}),
            ):
                place = f"{folder}/{name}{steps}"
                row.append(quality(trained(second, place, steps, **start), second, place + "/out"))
            rows.append(row)
    print(
        "| steps on the second | from random weights | from shapes | from the first's model |\n"
        "|---|---|---|---|"
    )
    for steps, *scores in rows:
        print(
            f"| {steps or '0 (the input; the models unchanged)'} | "
            f"{' | '.join(f'{score:.3f}' for score in scores)} |"
        )


if __name__ == "__main__":
    main()
