"""How good the detectors are: days with faults in them, a judge, baselines beside every figure, and the report."""
