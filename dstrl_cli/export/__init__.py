"""Trained policies for other programs and small devices: C, ONNX and NumPy. No torch is needed.

`network` takes out of a policy what its actions do not depend on; the other modules write what is
left, count its cost and time it.
"""
