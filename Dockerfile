# The service with its embedded engine and weights inside. Mount /data to keep trends, or to share snapshots.
#   docker build -t trendrag . && docker run --rm -p 127.0.0.1:8000:8000 trendrag
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/trendrag
ENV PATH=/opt/trendrag/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# With PostgreSQL's driver, Reddit's client and S3's: an image can't be added to as easily as an environment.
COPY locks/image.txt locks/
RUN pip install --require-hashes -r locks/image.txt
COPY . .
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
# Inside a container the port is reachable only as far as you publish it; there are no API keys yet.
CMD ["trendrag", "serve", "--host", "0.0.0.0"]
