# Processor:  docker build -t train-superbai .
# NVIDIA GPU: docker build -t train-superbai:gpu \
#                 --build-arg REQUIREMENTS=requirements/gpu.lock .
# Run it:     docker run --rm -v "$PWD/.valohai:/train-superbai/.valohai" train-superbai
#             (with --gpus all for the GPU image)
#
# The GPU image has CUDA from TensorFlow's own packages and needs a driver alone;
# TensorFlow's published images of this version are reported not to find their GPU.
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

# Before the code, and the one lock alone: the layer of packages stays until that changes.
WORKDIR /train-superbai
ARG REQUIREMENTS=requirements/cpu.lock
COPY ${REQUIREMENTS} ./requirements/
RUN pip install --require-hashes -r "${REQUIREMENTS}"
COPY . .

# It runs as root: a .valohai that is not there yet is made by Docker as root's, and no
# other user could write into it. To own what it writes, make the folder first and run it
# with --user "$(id -u)".
CMD ["python", "pipeline.py"]
