# The glean command, for images in /data: docker run --rm --volume "$PWD:/data" glean-ext restore photo.jpg -o restored.jpg
# PyTorch comes with CUDA: docker run --gpus all. For CPUs alone, which saves 5 GB:
# docker build --build-arg TORCH="torch @ URL" ., with the address of PyTorch's wheel for CPUs.
FROM python:3.13-slim

ARG TORCH="torch>=2.6"
# Extras of setup.cfg
ARG EXTRAS=faces,heic,video,web,onnx

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    TORCH_HOME=/cache/torch \
    OMP_WAIT_POLICY=PASSIVE

# What OpenCV loads; the base image decides their versions
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# PyTorch first, as its layer then stays when the package changes
# hadolint ignore=DL3013
RUN pip install "${TORCH}"

WORKDIR /src
COPY setup.cfg pyproject.toml README.md LICENSE NOTICE model-index.yml ./
COPY requirements requirements
COPY configs configs
COPY glean_ext glean_ext
# hadolint ignore=DL3013
RUN pip install ".[${EXTRAS}]"

RUN useradd --create-home --uid 1000 glean \
    && mkdir -p /data /cache/torch \
    && chown -R glean /data /cache
USER 1000
WORKDIR /data
VOLUME ["/cache"]
EXPOSE 7860
ENTRYPOINT ["glean"]
CMD ["--help"]
