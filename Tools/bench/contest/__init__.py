"""The parts of Tools/bench/peers.py: lorif beside what people use today."""
