# PromptPipe as an image; docs/deploying.md says how to run it.
#
# CI has no container engine: a test takes these steps in a bare Debian 12 with python3-venv instead. So every step has
# to work in both, and `python3` is whichever Python the base brings.

FROM python:3.11-slim-bookworm AS builder

WORKDIR /build

# What builds stays in an environment of its own, and here.
COPY requirements/uv.txt requirements/build.txt requirements/runtime.txt requirements/
RUN python3 -m venv tools \
 && tools/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes \
      -r requirements/uv.txt -r requirements/build.txt

# Wheels only: there is no compiler. The dependencies change less often than the code, and are a layer before it.
RUN python3 -m venv --without-pip /opt/promptpipe \
 && tools/bin/uv pip sync --quiet --no-cache --python /opt/promptpipe --compile-bytecode \
      --require-hashes --only-binary :all: requirements/runtime.txt

# uv leaves a lock behind that everybody may write to.
COPY pyproject.toml README.md LICENSE ./
COPY promptpipe promptpipe
RUN tools/bin/python -m hatchling build --target wheel --directory dist \
 && tools/bin/uv pip install --quiet --no-cache --python /opt/promptpipe --compile-bytecode --offline --no-deps dist/*.whl \
 && rm /opt/promptpipe/.lock


FROM python:3.11-slim-bookworm

LABEL org.opencontainers.image.title="PromptPipe" \
      org.opencontainers.image.description="Long conversations over WhatsApp that survive anything" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"

# A fixed number, so that volumes keep their owner from one image to the next. A new named volume takes over the owner
# and the mode of the folder that it is mounted on.
RUN groupadd --gid 10001 promptpipe \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/promptpipe --shell /usr/sbin/nologin promptpipe \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/promptpipe

COPY --from=builder /opt/promptpipe /opt/promptpipe
ENV PATH=/opt/promptpipe/bin:$PATH

# The base's standard library comes without bytecode, and nobody can write any later. This makes that of all modules in
# use; every start and every health check is the faster for it. And an image whose program cannot start is not made.
RUN python -c 'import promptpipe.app, promptpipe.cli, promptpipe.client, promptpipe.health'
ENV PYTHONDONTWRITEBYTECODE=1

# Beyond loopback, or nobody outside of the container would reach it: the service then refuses to start without secrets.
ENV PROMPTPIPE_HTTP_BIND=0.0.0.0:8080 \
    PROMPTPIPE_GRPC_BIND=0.0.0.0:50051 \
    PROMPTPIPE_DATABASE_URL=sqlite:////var/lib/promptpipe/promptpipe.db \
    PROMPTPIPE_LOG_FORMAT=json

USER 10001:10001
WORKDIR /var/lib/promptpipe
VOLUME /var/lib/promptpipe
EXPOSE 8080 50051

# Ready, not only alive: who waits for this container wants webhooks taken, and a process that is dead inside has ended,
# which the restart policy sees. The start may have a schema to migrate and a crash to repair.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["python", "-m", "promptpipe.health"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["promptpipe"]
CMD ["serve"]
