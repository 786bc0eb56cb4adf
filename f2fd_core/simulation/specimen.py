"""Specimens with known density: vesicles, sheets, macromolecules, spheres, ellipsoids, matter.

Volumes are (Z, Y, X); density is positive for matter.
"""

import math

import numpy as np

# Of a membrane, in Å.
LEAFLET_DISTANCE = 40.0
LEAFLET_WIDTH = 8.0
MEMBRANE_THICKNESS = 60.0
# How much of a cell has one of them, in Å³.
VOLUME_PER_VESICLE = 7e8
VOLUME_PER_PARTICLE = 1.2e7
VOLUME_PER_SPHERE = 6e7
# How often a place for one is looked for.
PLACING_TRIES = 50
# Density from which on a place is occupied.
OCCUPIED = 0.2
# The share of a crowded cell that is occupied.
CROWDED_SHARE = 1 / 3
# How far a macromolecule of a crowded cell keeps its centre from others, in radii of its own.
CROWDED_DISTANCE = 0.2
# Ellipsoids that are added before what they fill is measured, and how many at most.
SHAPES_AT_ONCE = 10
MOST_SHAPES = 4000


def random_rotation(random):
    """A rotation matrix drawn evenly from all; no mirror, since macromolecules have one hand."""
    basis, triangular = np.linalg.qr(random.normal(size=(3, 3)))
    basis *= np.sign(np.diag(triangular))
    return basis * np.linalg.det(basis)


class Specimen:
    """Density and membrane mask under construction; lengths in Å, positions (z, y, x).

    Attributes: ``density`` float32 and ``membrane`` bool, both (Z, Y, X).
    """

    def __init__(self, shape, voxel_size, seed):
        self.shape, self.voxel_size = shape, voxel_size
        self.extent = np.array(shape) * voxel_size
        self.random = np.random.default_rng(seed)
        self.density = np.zeros(shape, dtype=np.float32)
        self.membrane = np.zeros(shape, dtype=bool)
        self.axes = [np.arange(side, dtype=np.float32) * np.float32(voxel_size) for side in shape]

    def _blur(self, width):
        """A width not finer than the grid can hold."""
        return max(width, 0.7 * self.voxel_size)

    def _slices(self, centre, radius):
        """Slices of the voxels within ``radius`` of a centre."""
        slices = []
        for middle, side in zip(centre, self.shape):
            low = max(int((middle - radius) / self.voxel_size), 0)
            high = min(int((middle + radius) / self.voxel_size) + 2, side)
            slices.append(slice(low, max(low, high)))
        return tuple(slices)

    def _offsets(self, slices, centre, sparse=False):
        """Offsets (z, y, x) of voxels to a centre, as ``np.meshgrid`` gives them."""
        parts = [
            axis[part] - np.float32(middle) for axis, part, middle in zip(self.axes, slices, centre)
        ]
        return np.meshgrid(*parts, indexing="ij", sparse=sparse)

    def _box(self, centre, radius):
        """Slices of the voxels within ``radius`` of a centre, and their offsets (z, y, x) to it."""
        slices = self._slices(centre, radius)
        return slices, self._offsets(slices, centre)

    def _add_bilayer(self, slices, distance, extent=1.0):
        """A bilayer where the signed ``distance`` (Å) to its middle is small."""
        width = self._blur(LEAFLET_WIDTH)
        profile = sum(
            np.exp(-0.5 * ((distance - side * LEAFLET_DISTANCE / 2) / width) ** 2)
            for side in (-1, 1)
        )
        self.density[slices] = np.maximum(self.density[slices], profile * extent)
        self.membrane[slices] |= (np.abs(distance) < MEMBRANE_THICKNESS / 2) & (extent > 0.5)

    @staticmethod
    def _from_ellipsoid(offsets, radius, scale):
        """Distance (Å, to first order, negative inside) to the ellipsoid of all points whose
        offset from its centre, times ``scale`` (3, 3), is ``radius`` long."""
        scaled = np.einsum("ij,jzyx->izyx", scale.T, np.stack(offsets))
        length = np.linalg.norm(scaled, axis=0) + 1e-3
        slope = np.linalg.norm(np.einsum("ij,jzyx->izyx", scale, scaled), axis=0) / length
        return (length - radius) / (slope + 1e-6)

    def add_vesicle(self):
        """An ellipsoidal bilayer of 300 to 900 Å diameter."""
        radius = min(self.random.uniform(150, 450), 0.45 * self.extent.min())
        centre = self.random.uniform(0.1, 0.9, 3) * self.extent
        scale = random_rotation(self.random) * self.random.uniform(0.8, 1.25, 3)
        slices, offsets = self._box(centre, 1.3 * radius + MEMBRANE_THICKNESS)
        self._add_bilayer(slices, self._from_ellipsoid(offsets, radius, scale))

    def add_sheet(self):
        """A waved disk of bilayer, steep enough against the XY plane to be seen at all."""
        tilt, turn = (
            self.random.uniform(math.radians(55), math.radians(90)),
            self.random.uniform(0, 2 * math.pi),
        )
        normal = np.array(
            [math.cos(tilt), math.sin(tilt) * math.sin(turn), math.sin(tilt) * math.cos(turn)]
        )
        along = np.cross(normal, [1.0, 0.0, 0.0])
        along /= np.linalg.norm(along)
        radius = self.random.uniform(0.25, 0.45) * self.extent[1:].min()
        centre = self.random.uniform(0.2, 0.8, 3) * self.extent
        wave, height = self.random.uniform(600, 1200), self.random.uniform(20, 60)
        slices, offsets = self._box(centre, radius + height)
        offsets = np.stack(offsets)
        phase = 2 * math.pi * np.einsum("i,izyx->zyx", along, offsets) / wave
        slope = 2 * math.pi * height / wave * np.cos(phase)
        distance = (np.einsum("i,izyx->zyx", normal, offsets) - height * np.sin(phase)) / np.sqrt(
            1 + slope**2
        )
        from_centre = np.linalg.norm(offsets, axis=0)
        self._add_bilayer(slices, distance, 1 / (1 + np.exp((from_centre - radius) / 15)))

    def add_sphere(self):
        """A solid ball of 80 to 240 Å diameter."""
        radius = self.random.uniform(40, 120)
        slices, offsets = self._box(self.random.uniform(0, 1, 3) * self.extent, radius + 40)
        distance = np.linalg.norm(np.stack(offsets), axis=0) - radius
        ball = 0.8 / (1 + np.exp(distance / self._blur(5)))
        self.density[slices] = np.maximum(self.density[slices], ball)

    def _between(self, low, high, power=1.0):
        """A random number, its logarithm even from low to high; with a larger power low ones are
        more frequent."""
        return low * (high / low) ** self.random.uniform() ** power

    def add_shape(self, smallest, largest, power):
        """An ellipsoid of any proportions, density and softness: solid, a shell, or an open one.

        Its mean radius is between ``smallest`` and ``largest`` (Å), see :meth:`_between`.
        """
        radius = self._between(smallest, largest, power)
        stretch = np.exp(self.random.normal(0, 0.45, 3))
        slices, offsets = self._box(
            self.random.uniform(0, 1, 3) * self.extent,
            1.1 * radius / stretch.min() + MEMBRANE_THICKNESS,
        )
        distance = self._from_ellipsoid(offsets, radius, random_rotation(self.random) * stretch)
        softness = self._blur(self._between(4, 20))
        if self.random.uniform() < (0.75 if radius > 80 else 0.2):
            distance = np.abs(distance) - self._between(10, 70) / 2
            if self.random.uniform() < 0.5:
                normal = random_rotation(self.random)[0]
                above = np.einsum("i,izyx->zyx", normal, np.stack(offsets))
                distance = np.maximum(distance, above - self.random.uniform(-0.8, 0.8) * radius)
        body = self.random.uniform(0.3, 1.2) / (1 + np.exp(np.clip(distance / softness, -30, 30)))
        below = self.density[slices]
        self.density[slices] = (
            np.maximum(below, body) if self.random.uniform() < 0.5 else below + body
        )

    def fill_with_shapes(self):
        """Ellipsoids in numbers and of sizes that depend on the seed, 4 to 40 % of the volume."""
        share, power = self._between(0.04, 0.4), self.random.uniform(2, 7)
        smallest, largest = (
            self.voxel_size * self.random.uniform(*range_in_voxels)
            for range_in_voxels in ((1.2, 2.5), (15, 45))
        )
        for _ in range(MOST_SHAPES // SHAPES_AT_ONCE):
            for _ in range(SHAPES_AT_ONCE):
                self.add_shape(smallest, largest, power)
            if (self.density > OCCUPIED).mean() >= share:
                break

    def fill_with_matter(self):
        """A random density everywhere: the logistic function of a Gaussian random field, as of a
        liquid of two phases.

        The field's power falls steeply with the frequency. What has fine structure everywhere looks
        like noise, and a network that is to keep it keeps noise.
        """
        frequency = [np.fft.fftfreq(side).astype(np.float32) for side in self.shape[:2]]
        frequency.append(np.fft.rfftfreq(self.shape[2]).astype(np.float32))
        squares = sum(part**2 for part in np.meshgrid(*frequency, indexing="ij", sparse=True))
        coarsest = 1 / self._between(12, 80)
        falling = (squares + coarsest**2) ** (-self.random.uniform(5, 8) / 4)
        noise = self.random.standard_normal(self.shape, np.float32)
        field = np.fft.irfftn(np.fft.rfftn(noise) * falling, s=self.shape)
        field = (field / field.std() + self.random.normal()) * self._between(0.5, 2)
        self.density += self._between(0.2, 2) / (1 + np.exp(-field)).astype(np.float32)

    def species(self, count):
        """Shapes of ``count`` macromolecules: positions of their domains, (domains, 3) in Å."""
        shapes = []
        for size in np.linspace(25, 75, count):
            steps = self.random.normal(size=(int(4 + size / 5), 3))
            walk = np.cumsum(steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0)
            walk -= walk.mean(0)
            shapes.append(walk * size / np.linalg.norm(walk, axis=1).max())
        return shapes

    def add_particle(self, shape, distance=0.7):
        """One macromolecule, randomly turned, where there is room; gives up after some tries.

        ``distance``: how far, in radii of its own, it keeps its centre from others.
        """
        width = self._blur(14)
        domains = shape @ random_rotation(self.random).T
        radius = np.linalg.norm(shape, axis=1).max() + 3 * width
        for _ in range(PLACING_TRIES):
            centre = self.random.uniform(0, 1, 3) * self.extent
            if self.density[self._slices(centre, distance * radius)].max() < OCCUPIED:
                break
        else:
            return
        slices = self._slices(centre, radius)
        z, y, x = self._offsets(slices, centre, sparse=True)
        body = sum(
            np.exp(-0.5 * ((z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2) / width**2)
            for at in domains.astype(np.float32)
        )
        self.density[slices] += 1.2 * body / body.max()


def build_specimen(shape, voxel_size, kind, seed):
    """A Specimen: vesicles, sheets, macromolecules and spheres ("cell"), the same with
    macromolecules until a third of the volume is full ("crowded"), spheres, ellipsoids of all
    sizes, solid and hollow ("shapes"), the same in a matter that fills the volume ("matter"), or
    nothing ("empty").
    """
    specimen = Specimen(shape, voxel_size, seed)
    volume = float(specimen.extent.prod())
    if kind == "empty":
        return specimen
    if kind in ("shapes", "matter"):
        specimen.fill_with_shapes()
        if kind == "matter":
            specimen.fill_with_matter()
        return specimen
    if kind == "spheres":
        for _ in range(max(3, round(volume / VOLUME_PER_SPHERE))):
            specimen.add_sphere()
        return specimen
    for _ in range(max(2, round(volume / VOLUME_PER_VESICLE))):
        specimen.add_vesicle()
    for _ in range(max(1, round(volume / VOLUME_PER_VESICLE / 2))):
        specimen.add_sheet()
    for _ in range(max(3, round(volume / VOLUME_PER_SPHERE) // 8)):
        specimen.add_sphere()
    shapes = specimen.species(5)
    particles = round(volume / VOLUME_PER_PARTICLE)
    for number in range(particles):
        specimen.add_particle(shapes[number % len(shapes)])
    while kind == "crowded" and (specimen.density > OCCUPIED).mean() < CROWDED_SHARE:
        for number in range(max(particles // 4, 1)):
            specimen.add_particle(shapes[number % len(shapes)], CROWDED_DISTANCE)
    return specimen
