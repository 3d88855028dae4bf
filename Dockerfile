# The server and the command line, without torch. docs/kubernetes.md says how to build it.
#
#   docker build --build-arg PYTHON_DIGEST=sha256:… --tag registry.example.org/team/pathwatch:0.1.0 .

# Of python:3.11-slim, as your registry has it; there is no default, so that nobody builds on what a tag points to today.
ARG PYTHON_DIGEST
ARG VENV=/opt/pathwatch

FROM python:3.11-slim@${PYTHON_DIGEST} AS build

ARG VENV
# With `redis` and `otlp` for what these are for, such as `server,cli,redis`.
ARG EXTRAS=server,cli

WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY proto proto
COPY client client
COPY integrations integrations
COPY server server
# Not editable: nothing of /src is needed afterwards.
RUN python -m venv "$VENV" \
    && "$VENV/bin/pip" install --no-cache-dir -c constraints.txt ".[$EXTRAS]" \
    && "$VENV/bin/pip" uninstall --yes pip setuptools

FROM python:3.11-slim@${PYTHON_DIGEST}

LABEL org.opencontainers.image.title="pathwatch" \
      org.opencontainers.image.description="Evaluation-free early stopping for mixture-of-experts pretraining" \
      org.opencontainers.image.licenses="Apache-2.0"

ARG VENV
COPY --from=build ${VENV} ${VENV}

# The root file system may be read-only: /var/lib/pathwatch and /tmp are all that is written to.
ENV PATH=${VENV}/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# A number, which Kubernetes can tell from root.
RUN install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/pathwatch
USER 10001:10001
EXPOSE 50051 9464

ENTRYPOINT ["pathwatch"]
# Loopback alone, as everywhere; whoever lets others in says how (docs/security.md).
CMD ["serve", "--data", "/var/lib/pathwatch/data"]
