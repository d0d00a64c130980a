"""What can be said from few paired seeds: tests, intervals, power, families and looks, curves, events, shapes. No torch.

Everything takes and returns plain numbers and arrays; the first axes of an array may hold many studies at once, so that the
simulation of error rates runs the very functions that judge one study.
"""
