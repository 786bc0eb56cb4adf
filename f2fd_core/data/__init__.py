"""From an MRC file by voxels and patches to a batch."""
