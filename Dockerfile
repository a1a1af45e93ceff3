# Built and run by tests/e2e/test_image.py; how to use it: docs/deploy.md.
#
# Both stages stand on one base, since a virtual environment points at the Python that made it. Any Debian-like base
# will do that has Python 3.11 to 3.13 with venv, useradd and CA certificates.
ARG BASE=docker.io/library/python:3.13.14-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
# Two environments, so that the one that is shipped never holds pip.
RUN python3 -m venv tools \
    && python3 -m venv --without-pip /opt/opentv-proxy
COPY requirements.lock requirements-dev.lock ./
# Optional secrets for those who build behind a package index or an authority of their own; no layer holds them.
# setuptools only builds: its hash is in the development lock.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    sed -n '/^setuptools==/,/[^\\]$/p' requirements-dev.lock > build.lock \
    && tools/bin/pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: -r build.lock \
    && tools/bin/pip --python /opt/opentv-proxy/bin/python3 install \
        --no-cache-dir --no-compile --require-hashes --no-deps --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
# unchecked-hash: bytecode that stays valid whatever becomes of the files' times on their way through layers.
RUN tools/bin/pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir wheels . \
    && tools/bin/pip --python /opt/opentv-proxy/bin/python3 install \
        --no-cache-dir --no-compile --no-index --no-deps wheels/*.whl \
    && /opt/opentv-proxy/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /opt/opentv-proxy/lib

FROM ${BASE}
ENV PATH=/opt/opentv-proxy/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# The uid is part of what operators rely on: owners of mounted secrets, runAsUser. A named volume on the folder takes its
# owner over.
RUN groupadd --gid 10001 opentv-proxy \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin opentv-proxy \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/opentv-proxy
COPY --from=build /opt/opentv-proxy /opt/opentv-proxy
# python:*-slim comes without the standard library's bytecode, and a read-only root can never keep any: what the commands
# import is compiled here, once.
RUN python3 -c 'import proxy.check, proxy.demo, proxy.healthcheck, proxy.inspect, proxy.server, proxy.store_command'

ARG BASE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="opentv-auth-proxy" \
    org.opencontainers.image.description="Authenticating reverse proxy for callers that know nothing of OAuth" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${BASE}"
USER 10001:10001
# Ports of the default configuration, which listens on loopback: docs/deploy.md says what to set in a container.
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["opentv-proxy", "healthcheck"]
ENTRYPOINT ["opentv-proxy"]
CMD ["run"]
