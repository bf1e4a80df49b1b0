"""Experiments on Ray: works are handed to workers, each with the model; only the process that hands out writes.

Ray decides where workers run, starts them again when they die, and moves arguments and answers. ``session.py`` is an
experiment from begin to end, ``crew.py`` the workers, ``shift.py`` the handing out, ``worker.py`` a worker's own side.
"""
