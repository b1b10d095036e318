"""A disk that fills up: a real small file system, and what is done to a daemon on it."""
