# The service with its embedded engine and weights inside. Mount /data to keep trends and keys, or to share snapshots.
#   docker build -t trendrag .
#   docker run --rm -p 127.0.0.1:8000:8000 -e TRENDRAG_SERVER__KEYS=off trendrag    # for yourself: no keys, no strangers
#   docker run --rm -v trendrag:/data trendrag trendrag keys create me              # for others: a key first
#   docker run -v trendrag:/data -p 8000:8000 trendrag
FROM node:22-slim AS web
WORKDIR /src/serving/web
COPY serving/web/package.json serving/web/package-lock.json serving/web/.npmrc ./
RUN npm ci
COPY docs/openapi.json /src/docs/
COPY trendrag/demo/coffee.jpg /src/trendrag/demo/
COPY serving/web ./
RUN npm run build

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/trendrag
ENV PATH=/opt/trendrag/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# With PostgreSQL's driver, Reddit's client and S3's: an image can't be added to as easily as an environment.
COPY locks/image.txt locks/
RUN pip install --require-hashes -r locks/image.txt
COPY . .
COPY --from=web /src/serving/http/static/app serving/http/static/app
RUN pip install --no-deps --no-build-isolation . \
    && TRENDRAG_DATA_DIR=/data trendrag models fetch

FROM python:3.13-slim
RUN useradd --system --uid 10001 --create-home trendrag
COPY --from=build /opt/trendrag /opt/trendrag
COPY --from=build --chown=trendrag /data /data
ENV PATH=/opt/trendrag/bin:$PATH PYTHONUNBUFFERED=1 TRENDRAG_DATA_DIR=/data
USER 10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=20s --interval=15s --timeout=3s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# How far the port is published can't be seen from inside: without a key this refuses to start, and says what to do.
CMD ["trendrag", "serve", "--host", "0.0.0.0"]
