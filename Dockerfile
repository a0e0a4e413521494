# The public image's tag; the release workflow gives a digest. 3.15, final since October
# 2026, for its lazy imports; 3.13 and 3.14 pass that option over and work without.
ARG PYTHON=python:3.15-slim

FROM ${PYTHON} AS build
WORKDIR /build
COPY requirements requirements
# What GATE_LOGIN needs: azure, aws, google; what https to a collector needs: otel; or
# several of them; nothing by default.
ARG EXTRAS=
RUN for name in run ${EXTRAS}; do cat "requirements/${name}.txt"; done > wanted.txt && \
    pip install --no-cache-dir --no-compile --no-deps --only-binary :all: \
    --require-hashes --root-user-action ignore --target packages -r wanted.txt
COPY image image
COPY LICENSE entrypoint.py source/
COPY migration_gate source/migration_gate
# The time of every file; given by a build that must be repeatable.
ARG SOURCE_DATE_EPOCH=0
RUN python -E -s -X no_debug_ranges image/rootfs.py packages source /rootfs "${EXTRAS}"

# Nothing but the interpreter and what it can import: no shell, no package manager.
FROM scratch
# The OpenSSL inside psycopg's wheel looks for the system's roots elsewhere. Without a
# path of time zones Python would look for it in what it was built with, at each start.
ENV GATE_MIGRATIONS=/migrations \
    PYTHONTZPATH=/usr/share/zoneinfo \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
COPY --from=build /rootfs/base /
COPY --from=build /rootfs/gate /
# A number, so that Kubernetes can tell that it is not root; any other works too.
USER 65532:65532
# The environment is the gate's, not the interpreter's (-E); there is no site to look for
# (-S); a module is loaded when it is first used (bench/startup.md says what that buys).
ENTRYPOINT ["/usr/local/bin/python3", "-E", "-S", "-X", "utf8", "-X", "lazy_imports=all", "/app/entrypoint.pyc"]
ARG PYTHON VERSION=0.1.0 REVISION= SOURCE=
LABEL org.opencontainers.image.title="migration-gate" \
      org.opencontainers.image.description="Waits for PostgreSQL, applies plain-SQL migrations, exits 0 or 1" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="docker.io/library/${PYTHON}"
