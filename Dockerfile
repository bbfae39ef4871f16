# The gateway (and every other command) in a container that runs as nobody in particular with a read-only root:
#   docker build -t sluicegate .
#   docker run --read-only --tmpfs /tmp -v sluicegate:/data -p 8000:8000 --env-file provider.env sluicegate
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
 && /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin sluicegate \
 && install -d -o sluicegate -g sluicegate -m 700 /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 SLUICEGATE_STATE=/data SLUICEGATE_GATEWAY_LOG=json
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s CMD ["python", "-c", "import ssl, sys, urllib.request\nfor scheme in ('http', 'https'):\n    try:\n        sys.exit(urllib.request.urlopen(f'{scheme}://127.0.0.1:8000/readyz', timeout=4, context=ssl._create_unverified_context()).status != 200)\n    except OSError as error:\n        print(error)\nsys.exit(1)"]
ENTRYPOINT ["sluicegate"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
