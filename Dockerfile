# SpecSem for CPU and GPU alike: docs/docker.md. A digest may be given: --build-arg BASE=python@sha256:...
ARG BASE=python:3.13-slim-trixie

# What is locked, in a layer of its own: gigabytes that change with the lock only.
FROM ${BASE} AS dependencies
ARG TORCH_INDEX=""
WORKDIR /build
COPY requirements/uv.txt requirements/image.txt deploy/install-dependencies.sh ./
RUN ./install-dependencies.sh

# SpecSem itself, with the weights of the models that are shipped. Its command starts the same /opt/specsem.
FROM ${BASE} AS application
WORKDIR /build
COPY requirements/build.txt ./
RUN python3 -m venv /opt/specsem \
    && /opt/specsem/bin/pip install --no-cache-dir --require-hashes --requirement build.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app/
COPY specsem specsem/
COPY models models/
RUN /opt/specsem/bin/pip install --no-cache-dir --no-index --no-deps --no-build-isolation --prefix /opt/application .

FROM ${BASE}
SHELL ["/bin/sh", "-eu", "-c"]
# tini: Kubernetes and others have no --init. /data: a new volume there takes its owner and mode.
RUN apt-get update; \
    apt-get install --yes --no-install-recommends tini=0.19.*; \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*; \
    groupadd --gid 10001 specsem; \
    useradd --uid 10001 --gid specsem --no-create-home --home-dir /data --shell /usr/sbin/nologin specsem; \
    install --directory --owner=specsem --group=specsem --mode=0700 /data
COPY --from=dependencies /opt/specsem /opt/specsem
COPY --from=application /opt/application /opt/specsem

ENV PATH=/opt/specsem/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    SPECSEM_DATA_DIR=/data \
    SPECSEM_HOST=0.0.0.0 \
    SPECSEM_LOG_FORMAT=json \
    SPECSEM_PORT=8000 \
    SPECSEM_WORKER_PORT=8001
USER 10001:10001
WORKDIR /
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=2m --retries=3 \
    CMD ["python", "-m", "app.healthcheck"]
ENTRYPOINT ["tini", "--", "specsem"]
CMD ["serve"]

# Last, as these differ at each build.
ARG VERSION=""
ARG COMMIT=""
ARG CREATED=""
ENV SPECSEM_COMMIT=${COMMIT}
LABEL org.opencontainers.image.title="SpecSem" \
      org.opencontainers.image.description="Tells AI-generated video from camera video: a calibrated verdict with its time line." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.created="${CREATED}"
