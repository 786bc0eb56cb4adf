"""The network and its model files."""
