# Processor:  docker build -t train-superbai .
# NVIDIA GPU: docker build -t train-superbai:gpu \
#                 --build-arg REQUIREMENTS=requirements-gpu.txt .
# Run it:     docker run --rm -v "$PWD/.valohai:/train-superbai/.valohai" train-superbai
#             (with --gpus all for the GPU image)
#
# The GPU image has CUDA from TensorFlow's own packages and needs a driver alone;
# TensorFlow's published images of this version are reported not to find their GPU.
FROM python:3.11-slim

ARG REQUIREMENTS=requirements.txt
ENV PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

WORKDIR /train-superbai
COPY requirements.txt requirements-gpu.txt ./
RUN pip install -r "${REQUIREMENTS}"
COPY . .

CMD ["python", "pipeline.py"]
