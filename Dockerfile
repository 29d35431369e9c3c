# One image for `stokehold run` and `stokehold agent`; the chart's pods differ in their arguments.
# Everything that is installed is pinned with hashes in hack/image/*.lock (`make lock`).
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY hack/image/ locks/
# The environment that is shipped has no pip; the one that builds the wheel stays behind.
RUN python -m venv --without-pip /opt/stokehold \
    && pip --python /opt/stokehold/bin/python install --require-hashes --only-binary :all: -r locks/runtime.lock \
    && pip install --require-hashes --only-binary :all: -r locks/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY crds/ crds/
COPY operator/ operator/
RUN python -m hatchling build --target wheel --directory /wheel \
    && pip --python /opt/stokehold/bin/python install --no-index --no-deps /wheel/*.whl

FROM ${BASE}
COPY --from=build /opt/stokehold /opt/stokehold
ENV PATH=/opt/stokehold/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that the kubelet can see that it is not root. The agent's pod sets 0: the kubelet's socket is root's.
USER 65532:65532
ENTRYPOINT ["stokehold"]
CMD ["--help"]
