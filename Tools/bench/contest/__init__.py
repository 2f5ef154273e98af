"""The parts of Tools/bench/peers.py: lorif beside what people use today.

Two interpreters run them. The repository's runs the driver (data, stores, runner, stages, agreement, report); the
peers' runs one process of `contender.py` per measurement, with the class of that contender (dense, factored, indexes,
curvature, with_*), and `plots.py`. The two talk in JSON files.
"""
