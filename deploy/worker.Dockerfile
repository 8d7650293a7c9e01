# The image of remote Python workers (Flink, Dataflow): Beam's own with Gristmill in it.
#   docker build -f deploy/worker.Dockerfile -t REPOSITORY/gristmill-worker:0.1.0 .
# Beam's release and Python's must be those that `gristmill run` is started with.
FROM apache/beam_python3.11_sdk:2.77.0

WORKDIR /gristmill
COPY pyproject.toml constraints.txt README.md LICENSE gristmill.py ./
COPY schemas schemas
COPY pipeline pipeline
COPY deploy/flink/worker_pool.py deploy/flink/worker_pool.py
RUN pip install --no-cache-dir --constraint constraints.txt .
WORKDIR /

# A worker process for each core does the work; libraries with a thread for each core on top would only slow it.
ENV OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1 NUMBA_NUM_THREADS=1
