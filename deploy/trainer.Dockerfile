# The image of the trainer: Gristmill and torch with CUDA.
#   docker build -f deploy/trainer.Dockerfile -t REPOSITORY/gristmill-trainer:0.1.0 .
# The wheel of torch brings its CUDA libraries; the node needs a driver that is new enough for them.
FROM python:3.11-slim

# torch.compile builds kernels and their launchers with a C compiler.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /gristmill
COPY pyproject.toml constraints.txt README.md LICENSE gristmill.py ./
COPY schemas schemas
COPY pipeline pipeline
COPY trainer trainer
RUN pip install --no-cache-dir --constraint constraints.txt '.[trainer]'
WORKDIR /

# Process 1 must be torchrun, or a script that hands SIGTERM on to it (kubernetes/trainer.yaml): the ranks save on it.
ENTRYPOINT ["torchrun"]
