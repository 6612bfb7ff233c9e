"""YOLOv3 for Keras 3: network, data, training, inference and evaluation.

This package does not depend on Valohai or Superb AI; the step scripts combine them.
"""
