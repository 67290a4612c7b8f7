# Two images from one file: `server` (web, dispatcher and what prepares them) and `worker` (runs functions, without Django).
#
#     docker build --target worker --build-arg PYTHON_VERSION=3.12 .
#
# Behind an index of your own: `--secret id=pip_conf,src=pip.conf` is /etc/pip.conf while packages are installed, and
# stays in no layer.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim-trixie AS base
ENV PATH=/opt/faas/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# The folders that volumes are mounted on: an empty volume takes the owner of the folder below it.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin faas \
    && install --directory --owner faas --group faas --mode 0755 \
       /functions /secrets/db /secrets/redis /secrets/worker /run/faas /var/lib/redis \
    && install --directory --owner faas --group faas --mode 0700 /secrets/server /var/lib/faas

# What the images install, in two steps: packages of others, which seldom change, and then our own.
FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_PROGRESS_BAR=off
RUN python -m venv --without-pip /opt/faas && python -m venv /opt/pip
WORKDIR /source
# For the first step: what a pyproject.toml depends on, with the extras that are named behind it.
RUN printf '%s\n' 'import sys, tomllib' \
    'project = tomllib.load(open(sys.argv[1], "rb"))["project"]' \
    'extras = [project["optional-dependencies"][name] for name in sys.argv[2:]]' \
    'print(*project["dependencies"], *sum(extras, []), sep="\n")' >/opt/requirements.py

FROM build AS server-packages
COPY pyproject.toml .
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python /opt/requirements.py pyproject.toml >requirements.txt \
    && /opt/pip/bin/pip --python /opt/faas/bin/python install --quiet --requirement requirements.txt

FROM build AS worker-packages
COPY library/pyproject.toml library/
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python /opt/requirements.py library/pyproject.toml worker >requirements.txt \
    && /opt/pip/bin/pip --python /opt/faas/bin/python install --quiet --requirement requirements.txt

FROM build AS wheels
COPY . .
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    /opt/pip/bin/pip wheel --quiet --no-deps --wheel-dir /wheels . ./library

FROM server-packages AS server-wheel
RUN --mount=from=wheels,source=/wheels,target=/wheels \
    /opt/pip/bin/pip --python /opt/faas/bin/python install --quiet --no-deps --no-index --prefix /wheel \
    /wheels/everythingfaas_server-*.whl

FROM worker-packages AS worker-wheel
RUN --mount=from=wheels,source=/wheels,target=/wheels \
    /opt/pip/bin/pip --python /opt/faas/bin/python install --quiet --no-deps --no-index --prefix /wheel \
    /wheels/everythingfaas-*.whl

FROM base AS server
COPY --from=server-packages /opt/faas /opt/faas
COPY --from=server-wheel /wheel /opt/faas
ENV DJANGO_SETTINGS_MODULE=faas_project.settings FAAS_DATA_DIR=/var/lib/faas FAAS_LISTEN=0.0.0.0
USER 10001:10001
WORKDIR /var/lib/faas
EXPOSE 8000
CMD ["python", "-P", "-m", "faas_project.serve"]
ARG REVISION=""
LABEL org.opencontainers.image.title="EverythingFaaS" org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"

FROM base AS worker
COPY --from=worker-packages /opt/faas /opt/faas
COPY --from=worker-wheel /wheel /opt/faas
USER 10001:10001
# Functions import from the folder that the worker is started in; what looks for a home to write to finds /tmp.
ENV HOME=/tmp
WORKDIR /functions
ENTRYPOINT ["python", "-P", "-m", "worker"]
ARG REVISION=""
LABEL org.opencontainers.image.title="EverythingFaaS worker" org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
