# Simulation and comparison on a CPU: amd64 or arm64. (The cloud and devices of a deployment have Dockerfiles of
# their own, written by `cdc-flower provision files`.) It was not built where the tests ran, which had no Docker.
#   docker build -t cdc-flower .
#   docker run --rm -v $PWD/results:/work/results cdc-flower compare --methods static,cdc
FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /opt/cdc-flower
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY cdc_flower cdc_flower
COPY strategies strategies
COPY clients clients
COPY experiments experiments
# The lock's versions of what is needed to run, and of the readers of video files; torch without CUDA.
RUN pip install --no-cache-dir --extra-index-url ${TORCH_INDEX} --constraint requirements.lock ".[video]"
RUN useradd --uid 10001 --create-home cdc && mkdir -p /work/results /cache && chown -R cdc /work /cache
USER cdc
WORKDIR /work
ENV CDC_FLOWER_CACHE=/cache PYTHONUNBUFFERED=1
VOLUME ["/work/results", "/cache"]
ENTRYPOINT ["cdc-flower"]
CMD ["--help"]
