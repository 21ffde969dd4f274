"""ctpeer: the daemon with which a community trains a foundation model together."""

__version__ = "0.1.0"
