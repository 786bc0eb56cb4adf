"""The verbs of the command line, one a file, to be read from top to bottom."""
