"""The error of a denoised tomogram without a truth.

X = S + m, the tomogram, is signal and noise, and f(X) the denoised one. What f(X) and X have in
common is what f(X) and S have, and C, the covariance of f(X) and m: for Gaussian noise that is how
f responds to a little more of it (Stein, Ann. Stat. 9 (1981) 1135; by random probes: Ramani et al.,
IEEE Trans. Image Process. 17 (2008) 1540). So with the power of the noise, N, the covariance with
the signal is known, A = <f(X) X> - C, and that of the signal, <X²> - N. That is so for a network
that has not learned from this very noise: what one has learned of it by training for long on this
tomogram is not in its response, and passes for signal.

With half-maps N is known, up to chance, and so is the power of the signal. Without, the estimate
that a training begins with is off by a tenth, and a tenth of the noise may be more than all the
signal. But a network that does its best leaves <|X - f(X)|²> = N - C, and C = t N, t being its
response: which gives N once more. What it does not explain of the signal, then, is C. So the best
of several networks gives N for all. With half-maps that is what is expected of the signal, too, in
shells in which what is measured is mostly chance.
"""

import numpy as np

from f2fd_core.checking.shells import PROBE, TOMOGRAM
from f2fd_core.evaluation import metrics
from f2fd_core.fourier import TINY

# Less than this share of a shell's power counts as no signal.
SOME_SIGNAL = 0.01
# A network that passes more than this share of noise says nothing about how much there is.
MOST_PASSED = 0.8
# Half-maps that differ by more than so many times the noise that the best network shows are as
# none.
MOST_KNOWN = 1.03
# The least and the most that is unexplained of the signal, over what would be if the best network
# did its best: a third and three times as much (docs/check.md has how often that holds the truth).
UNEXPLAINED = 1 / 3, 3.0
# Standard deviations (voxels) of the Gaussians that a result is compared with.
WIDTHS = np.geomspace(0.4, 6, 25)


class Estimate:
    """What shells show of the error of several results (names).

    Attributes, by shell: ``noise`` and ``signal``, their power, and ``covariance[name]`` of each
    result with the signal. ``by_half_maps``: whether the noise is known by half-maps; ``best``: the
    result with the least error.
    """

    def __init__(self, shells, results, factor=1.0, off=0.0):
        """``factor``: how many times more than C is unexplained; ``off``: by how many standard
        deviations the signal that half-maps show is."""
        self.shells, self.results = shells, results
        total, known = shells[TOMOGRAM, TOMOGRAM], shells.known_noise()
        self.responses = {name: shells.response(name) for name in results}
        self.powers = {name: shells[name, name] for name in results}
        self.best = min(results, key=self._stein)
        left = np.minimum(
            total,
            self.left_by(self.best) / np.maximum(1 - self.responses[self.best], 1 - MOST_PASSED),
        )
        self.by_half_maps = known is not None and bool(known.sum() <= MOST_KNOWN * left.sum())
        self.noise = known if self.by_half_maps else left
        self.covariance = {
            name: shells[name, TOMOGRAM] - self.responses[name] * self.noise for name in results
        }
        # What the best explains, by Cauchy and Schwarz, and what it does not.
        explained = np.maximum(self.covariance[self.best], 0) ** 2
        explained /= np.maximum(self.powers[self.best], TINY)
        rest = np.maximum(self.responses[self.best], 0) * self.noise
        self.signal = explained + factor * rest
        if self.by_half_maps:
            self.signal = self._measured(explained, off)

    def _measured(self, explained, off):
        """The signal by half-maps: the mean of what is measured and what is expected, by their
        variances; that may be off by as much as it is."""
        expected, chance = self.signal, self.shells.chance()
        trust = expected**2 / np.maximum(expected**2 + chance, TINY)
        signal = expected + trust * (self.shells[TOMOGRAM, TOMOGRAM] - self.noise - expected)
        whole = max(signal.sum() + off * np.sqrt((trust * chance).sum()), explained.sum())
        return signal * whole / signal.sum()

    def _stein(self, name):
        """Stein's estimate of the error of a result, but for the noise's own power, with the noise
        that the probe has: it need not be right to show which of several results is best."""
        return (self.left_by(name) + 2 * self.shells[name + " response", PROBE]).sum()

    def left_by(self, name):
        """The power of what a result lacks of the tomogram, by shell."""
        return self.shells[TOMOGRAM, TOMOGRAM] + self.powers[name] - 2 * self.shells[name, TOMOGRAM]

    def correlation(self, name):
        """The correlation with the truth that a result is estimated to have."""
        return self._over(self.covariance[name], self.powers[name])

    def _over(self, covariance, power):
        length = np.sqrt(max(np.sum(power) * np.sum(self.signal), TINY))
        return float(np.clip(np.sum(covariance) / length, -1, 1))

    def of_tomogram(self):
        """The same of the tomogram as it is."""
        return self._over(self.signal, self.shells[TOMOGRAM, TOMOGRAM])

    def of_gaussian(self):
        """The same of the best Gaussian filter."""

        def filtered(width):
            gain = np.exp(-2 * (np.pi * width * self.shells.frequencies) ** 2)
            return self._over(gain * self.signal, gain**2 * self.shells[TOMOGRAM, TOMOGRAM])

        return max(map(filtered, WIDTHS))

    def shell_correlation(self, name):
        """The Fourier shell correlation with the truth that a result is estimated to have."""
        length = np.sqrt(np.maximum(self.powers[name] * self.signal, TINY))
        # Without signal it would be the ratio of two small differences.
        some = self.signal > SOME_SIGNAL * self.shells[TOMOGRAM, TOMOGRAM]
        return np.where(some, np.clip(self.covariance[name] / length, -1, 1), 0)

    def shell_correlation_of_tomogram(self):
        """The same of the tomogram as it is."""
        total = np.maximum(self.shells[TOMOGRAM, TOMOGRAM], TINY)
        return np.sqrt(np.clip(self.signal / total, 0, 1))


def resolution(frequencies, curve, voxel_size, threshold=0.5):
    """The length (Å) at which a Fourier shell correlation falls below a threshold; None if it never
    does."""
    found = metrics.crossing(frequencies, curve, threshold)
    return None if found is None else voxel_size / found
