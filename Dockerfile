# CPU: docker build -t train-superbai .
# GPU: docker build -t train-superbai:gpu \
#          --build-arg REQUIREMENTS=requirements/gpu.lock .
# Run: docker run --rm -v "$PWD/.valohai:/train-superbai/.valohai" train-superbai
#      (for the GPU image, add --gpus all and name train-superbai:gpu)
#
# The GPU image installs CUDA from pip and needs only an NVIDIA driver on the machine.
# It is not based on TensorFlow's own image: that of this version is reported not to find
# GPUs.
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

# Only the lock is copied before the packages are installed, so that the layer of packages
# is rebuilt only when the lock changes.
WORKDIR /train-superbai
ARG REQUIREMENTS=requirements/cpu.lock
COPY ${REQUIREMENTS} ./requirements/
RUN pip install --require-hashes -r "${REQUIREMENTS}"
COPY . .

# The container runs as root: Docker creates a missing .valohai folder as root, and no
# other user could write to it. To own the results, create the folder first and run with
# --user "$(id -u)".
CMD ["python", "pipeline.py"]
