# The demo as an image: CPU only, not root. Build: docker build -t proponent .   Run: docker compose -f docker/compose.yaml up
FROM python:3.11-slim

# An index of CPU-only builds of torch may be named here, so that no GPU packages are drawn in.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu

WORKDIR /app
COPY pyproject.toml constraints.txt README.md ./
COPY indexer ./indexer
COPY service ./service

RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url "$TORCH_INDEX_URL" torch
RUN pip install --no-cache-dir --constraint constraints.txt .
RUN useradd --create-home --uid 10001 proponent

USER proponent
WORKDIR /home/proponent
RUN proponent demo mnist

EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["proponent", "serve", "indexes/mnist", "--task", "indexer.recipes.mnist:task", "--host", "0.0.0.0", "--allow-public"]
