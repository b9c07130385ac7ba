"""Files on disk: the results folder and the cache folder."""
