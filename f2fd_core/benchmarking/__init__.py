"""F2Fd beside other methods, on simulated tomograms or on one of yours."""
