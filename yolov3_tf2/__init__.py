"""YOLOv3 for Keras 3: network, loss, targets, decoding and the files around them.

Nothing in this package knows Valohai: the step scripts beside it do.
"""
