# The CTI server. Every Python package is pinned by hash; the build tools stay in the first stage.
ARG PYTHON=3.13-slim-bookworm
FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY requirements requirements
RUN python -m venv /opt/tools && /opt/tools/bin/pip install --require-hashes -r requirements/dev.txt \
 && python -m venv /opt/cti && /opt/cti/bin/pip install --require-hashes -r requirements/base.txt
COPY pyproject.toml README.md ./
COPY cti cti
COPY routing routing
COPY dialer dialer
COPY crm crm
COPY web web
RUN apt-get update && apt-get install -y --no-install-recommends nodejs npm \
 && cd web && npm ci --ignore-scripts --no-audit --no-fund && node build.mjs ../cti/phone_page
RUN /opt/tools/bin/python -m hatchling build -t wheel && /opt/cti/bin/pip install --no-deps dist/*.whl

FROM python:${PYTHON}
RUN useradd --system --uid 10001 --home-dir /var/lib/cti --create-home cti
COPY --from=build /opt/cti /opt/cti
ENV PATH=/opt/cti/bin:$PATH PYTHONUNBUFFERED=1 CTI_LISTEN=0.0.0.0 CTI_PORT=8600
USER cti
WORKDIR /var/lib/cti
EXPOSE 8600
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8600/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["cti", "serve"]
